"""Every command of the README runs, in order, in a folder that holds what the README takes for granted."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import DEMO, REPO

README = (REPO / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True) for line in lines]


def test_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z]+)", README))
    assert {"demo", "test", "lint", "clients"} <= named
    assert named <= targets


def test_nothing_but_hyocr_and_its_installation_is_shown() -> None:
    assert len(commands()) >= 6
    assert {tuple(command[:2]) for command in commands() if command[0] != "hyocr"} == {("pip", "install")}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Some pages with transcripts, and held-out rows."""
    (tmp_path / "pages").mkdir()
    for image in sorted((DEMO / "data" / "images").glob("calib-000*.png"))[:4]:
        shutil.copy(image, tmp_path / "pages")
    shutil.copytree(DEMO / "data" / "images", tmp_path / "images")
    shutil.copytree(REPO / "configs", tmp_path / "configs")
    rows = (DEMO / "data" / "heldout.jsonl").read_text(encoding="utf-8").splitlines()[:8]
    (tmp_path / "heldout.jsonl").write_text("\n".join(rows), encoding="utf-8")
    return tmp_path


def test_commands_run(folder: Path, hub_cache: Path) -> None:
    environment = os.environ | {"HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "1"}
    (yaml,) = blocks("yaml")
    (folder / "run.yaml").write_text(yaml, encoding="utf-8")
    from_file = ["hyocr", "quant", "-c", "run.yaml", "--output", "from-file"]
    for command in [*commands(), from_file]:
        if command[0] == "hyocr":
            program = str(Path(sys.executable).with_name("hyocr"))
            done = subprocess.run(
                [program, *command[1:]], cwd=folder, env=environment, capture_output=True, text=True, check=False
            )
            assert done.returncode == 0, f"{shlex.join(command)}\n{done.stderr}"
    assert (folder / "HunyuanOCR-int4" / "hyocr_report.json").is_file()
    assert (folder / "from-file" / "config.json").is_file()
