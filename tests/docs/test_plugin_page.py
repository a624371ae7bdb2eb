"""docs/plugin.md, followed to the letter in an environment that holds the core and nothing else of this repository."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from itertools import takewhile
from pathlib import Path

import pytest

from tests.conftest import DEMO, lay_out_hub
from tests.docs.pages import DOCS, fences
from tests.test_install import Environment

LEFT_OUT = {
    "pip install hyocr-core[testing]": "needs a package index; the core is installed from the repository",
    "python -m build": "`make release-check` builds distributions",
    "twine upload dist/*": "publishes",
}
OFFLINE = ["--no-deps", "--no-index", "--no-build-isolation"]


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """How the environment's programs are called."""
    folder = tmp_path_factory.mktemp("environment")
    Environment(folder).install(".")
    python = str(folder / "bin/python")
    return {
        "hyocr": [str(folder / "bin/hyocr")],
        "pip": [python, "-m", "pip", "--disable-pip-version-check"],
        "pytest": [python, "-m", "pytest", "-p", "no:cacheprovider"],
    }


def test_following_the_page_makes_a_method_that_keeps_the_contract(
    programs: dict[str, list[str]], demo: Path, tmp_path: Path
) -> None:
    work, ran, replaced = tmp_path / "work", [], False
    work.mkdir()
    cache = lay_out_hub(demo, tmp_path / "hub")
    for fence in fences(DOCS / "plugin.md"):
        if fence.language == "python" and fence.title:
            (work / fence.title).write_text(fence.text, encoding="utf-8")
            replaced = True
        for command in fence.commands if fence.language == "sh" else []:
            # That the method passes as it was generated is shown in test_install.py.
            if " ".join(command) in LEFT_OUT or (command == ["pytest"] and not replaced):
                continue
            if command[0] == "cd":
                work = work / command[1]
                lay_out_pages(work)
            else:
                settings = dict(part.split("=") for part in takewhile(lambda part: "=" in part, command))
                name, *rest = command[len(settings) :]
                run([*programs[name], *rest], work, settings | {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": "1"})
                ran.append(name)
    assert ran.count("pytest") == 2
    report = json.loads((work / "HunyuanOCR-hqq" / "hyocr_report.json").read_text(encoding="utf-8"))
    assert "hyocr-plugin-hqq" in json.dumps(report)
    sources = [path.read_text(encoding="utf-8") for path in sorted(work.glob("src/**/*.py"))]
    assert 100 < sum(1 for source in sources for line in source.splitlines() if line.strip()) < 150


def lay_out_pages(folder: Path) -> None:
    shutil.copytree(DEMO / "data" / "images", folder / "images")
    rows = (DEMO / "data" / "heldout.jsonl").read_text(encoding="utf-8").splitlines()[:4]
    (folder / "heldout.jsonl").write_text("\n".join(rows), encoding="utf-8")


def run(command: list[str], folder: Path, settings: dict[str, str]) -> None:
    if command[1:3] == ["-m", "pip"]:
        command = [*command, *OFFLINE]
    done = subprocess.run(
        command,
        cwd=folder,
        env=os.environ | settings,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"
