"""A process that dies at any point leaves the finished target, or a stage from which the same bytes come."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import BaseModel
from torch import Tensor

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.writer import StagedCheckpoint

# Every change of the disk goes through one of these, or is followed by an fsync.
STEPS = ("mkdir", "fsync", "replace", "rename", "unlink", "rmdir")
KILLED = 9


class Record(BaseModel):
    errors: dict[str, float] = {}


def run(model: Path, target: Path, *, resume: bool) -> None:
    """The writing half of a run: two blocks, then the rest."""
    with StagedCheckpoint.open(target, resume=resume) as stage:
        fingerprint = {"seed": 0}
        journal = (
            Journal.resume(stage.journal_path, fingerprint, Record)
            if resume
            else Journal.start(stage.journal_path, fingerprint, Record())
        )
        for number in range(2):
            key = f"block-{number}"
            if key not in journal.record.errors:
                stage.add_part(key, {f"{key}.qweight": torch.arange(64) * (number + 1)})
                journal.record.errors[key] = 0.1 * number
                journal.save()
        reader = CheckpointReader(model)
        report = repr(journal.record).encode()
        stage.build(reader, reader.tensors, ["block-0", "block-1"], {"a": 1}, shard_bytes=600)
        stage.add_file("report", report)
        stage.publish()


def dies(model: Path, target: Path, *, resume: bool, after: int) -> bool:
    """Run in a child that exits hard when it has changed the disk `after` times; False when it got through."""
    child = os.fork()
    if child == 0:
        steps = iter(range(after))
        for name in STEPS:
            setattr(os, name, _deadly(getattr(os, name), steps))
        status = 1
        try:
            run(model, target, resume=resume)
            status = 0
        finally:
            os._exit(status)
    _, result = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(result)
    assert code in (0, KILLED)
    return code == KILLED


def _deadly(call: Callable[..., Any], steps: Any) -> Callable[..., Any]:
    def wrapped(*args: Any, **options: Any) -> Any:
        if next(steps, None) is None:
            os._exit(KILLED)
        return call(*args, **options)

    return wrapped


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def model(write_single: Callable[[Mapping[str, Tensor]], Path], tensors: dict[str, Tensor]) -> Path:
    return write_single(tensors)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    # The process dies here, not the machine: what it wrote stays visible without being flushed.
    monkeypatch.setattr(os, "fsync", lambda _descriptor: None)


@pytest.mark.parametrize("again", [False, True], ids=["killed once", "killed again while resuming"])
def test_killed_at_every_step(model: Path, tmp_path: Path, again: bool) -> None:
    run(model, tmp_path / "expected", resume=False)
    expected = contents(tmp_path / "expected")
    assert len(expected) > 5
    resumed = after = 0
    while dies(model, target := tmp_path / f"out-{after}", resume=False, after=after):
        stage = target.parent / f".{target.name}.hyocr-partial"
        if not target.exists():
            resume = (stage / "journal.json").exists()
            resumed += resume
            if again and resume:
                dies(model, target, resume=True, after=after // 2)
            if not target.exists():
                run(model, target, resume=resume)
        assert contents(target) == expected
        after += 1
    assert contents(target) == expected
    assert resumed > 20
