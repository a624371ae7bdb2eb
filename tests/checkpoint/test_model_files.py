"""What lies in a model's folder: files and folders, and no text of unlikely size."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyocr_core.checkpoint.model_files import check_files
from hyocr_core.errors import CheckpointError


def test_the_demo_passes(demo: Path) -> None:
    check_files(demo)


def test_weights_may_be_large_and_texts_may_not(tmp_path: Path) -> None:
    for name in ("model.safetensors", "merges.txt"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 1 << 40)
    with pytest.raises(CheckpointError, match=r"merges\.txt cannot be read: it has more than 268,435,456 bytes"):
        check_files(tmp_path)
    (tmp_path / "merges.txt").unlink()
    check_files(tmp_path)


def test_a_pipe_is_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "vocab.txt")
    with pytest.raises(CheckpointError, match=r"vocab\.txt cannot be read: it is a named pipe, not a file"):
        check_files(tmp_path)


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="missing cannot be read: No such file or directory"):
        check_files(tmp_path / "missing")
