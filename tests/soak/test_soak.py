"""A short soak; `make soak` is the long one. And that a soak finds what it is there to find."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random
from typing import Any

import pytest

from hyocr_core.checkpoint.writer import stage_folder
from hyocr_core.run import quantize
from hyocr_core.testing.tiny import write_checkpoint
from tests.soak.commands import WORK, run_command
from tests.soak.scenarios import SCENARIOS, command
from tests.soak.soak import Soak

pytestmark = pytest.mark.needs_methods


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "model"
    write_checkpoint(folder)
    return folder


def soak(name: str, model: Path, folder: Path, **options: Any) -> Soak:
    return Soak(name, model, folder, Random(13), **options)  # noqa: S311


@pytest.mark.parametrize("name", ["gptq quant_vit", "gptq --answers generate"])
def test_a_few_kills(name: str, model: Path, tmp_path: Path) -> None:
    counts = soak(name, model, tmp_path).run(2)
    assert counts.differences == []
    assert counts.at_operations + counts.at_random >= 2
    assert counts.resumptions >= 1
    assert [path.name for path in tmp_path.iterdir()] == ["straight"], "what went well is not kept"


@pytest.mark.parametrize("name", ["rtn", "fp8 --gate that fails"])
def test_killed_at_each_of_the_last_operations(name: str, model: Path, tmp_path: Path) -> None:
    """From before the checkpoint appears to after its page is drawn: what is left is done, and no stage stays."""
    operations = slice(-14, None) if name == "rtn" else slice(-15, None, 7)
    counts = soak(name, model, tmp_path, spoils=False).run(0, operations=operations)
    assert counts.differences == []
    assert counts.at_operations >= (14 if name == "rtn" else 3)


def test_killed_before_the_first_operation(model: Path, tmp_path: Path) -> None:
    (tmp_path / WORK).mkdir()
    ended = run_command(command("rtn", model, tmp_path), tmp_path, kill_at=0)
    assert (ended.code, list((tmp_path / WORK).iterdir())) == (None, [])


def test_every_operation_is_counted_once(model: Path, tmp_path: Path) -> None:
    """Killed at one, the disk is as the one before left it: the stage grows from number to number."""
    seen = []
    for number in (5, 15, 25):
        folder = tmp_path / str(number)
        (folder / WORK).mkdir(parents=True)
        assert run_command(command("rtn", model, folder), folder, kill_at=number).code is None
        seen.append(sum(path.is_file() for path in stage_folder(folder / WORK / "out").rglob("*")))
    assert seen == sorted(seen)
    assert seen[0] < seen[-1]


def test_a_run_that_trusts_what_it_finds_is_caught(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it was before there were digests. Killed at operations alone: what is damaged then is the same on any day."""
    monkeypatch.setattr(quantize, "remove_damaged", lambda *_: None)
    monkeypatch.setattr("hyocr_core.run.publish.check_parts", lambda *_: None)
    monkeypatch.setattr("tests.soak.soak.SPOILT", 1)
    counts = soak("rtn", model, tmp_path).run(0, operations=slice(6, None, 6))
    assert counts.damaged
    assert counts.differences


def test_a_run_that_forgets_its_name_is_caught(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it was when a run that had published was told that its output is not empty."""
    monkeypatch.setattr(quantize, "finish", lambda _run: None)
    counts = soak("rtn", model, tmp_path, spoils=False).run(0, operations=slice(-3, None))
    assert any("exit code 2" in line and "is not empty" in line for line in counts.differences)


def test_all_methods_and_ways_are_killed() -> None:
    words = {word for arguments in SCENARIOS.values() for word in arguments}
    assert {"gptq", "awq", "fp8", "rtn", "quant_vit=true", "--answers", "--gate", "--spill"} <= words
    assert os.environ.get("TOKENIZERS_PARALLELISM") != "true", "a fork of a process with threads may hang"
