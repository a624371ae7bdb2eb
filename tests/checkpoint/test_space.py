"""The estimate of the disk a run needs, against what really lies there; and the refusal when it is too much."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.space import check_disk, required_disk
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.errors import OutputError

Usage = namedtuple("Usage", "total used free")
MEBIBYTE = 1 << 20


def test_required_is_what_lies_there_before_the_rename(
    write_single: Callable[[Mapping[str, Tensor]], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = write_single({"a.weight": torch.ones(8 * MEBIBYTE), "b.weight": torch.ones(10 * MEBIBYTE).half()})
    reader = CheckpointReader(model)
    packed = torch.ones(5 * MEBIBYTE)
    measured: list[int] = []
    rename = os.rename

    def measure(source: Path, destination: Path) -> None:
        measured.append(sum(path.stat().st_size for path in source.parent.rglob("*") if path.is_file()))
        rename(source, destination)

    monkeypatch.setattr(os, "rename", measure)
    with StagedCheckpoint.open(tmp_path / "out", resume=False) as stage:
        stage.add_part("a", {"a.qweight": packed})
        stage.build(reader, ["b.weight"], ["a"], {})
        stage.publish()
    assert measured[0] > 60 * MEBIBYTE
    assert measured[0] < required_disk(reader, ["a.weight"], packed.nbytes) < measured[0] + 20 * MEBIBYTE


def test_too_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(10**12, 0, 2 * 10**9))
    check_disk(tmp_path / "new" / "out", 2 * 10**9)
    with pytest.raises(OutputError, match=rf"^{tmp_path}: the run needs 3\.10 GB of disk, 2\.00 GB are free"):
        check_disk(tmp_path / "new" / "out", 3_100_000_000)


def test_what_a_stage_holds_need_not_be_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = tmp_path / ".out.hyocr-partial" / "parts"
    parts.mkdir(parents=True)
    (parts / "a").write_bytes(bytes(500))
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: Usage(10**12, 0, 1000))
    check_disk(tmp_path / "out", 1500)
    with pytest.raises(OutputError):
        check_disk(tmp_path / "out", 1501)
