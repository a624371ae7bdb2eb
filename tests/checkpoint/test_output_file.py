"""Where a command may write: nothing of anyone else's is replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from hyocr_core.checkpoint.output_file import check_output, check_output_folder
from hyocr_core.errors import OutputError

MARK = b"mine,"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    (folder / "report").mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / name).write_text("{}")
    return folder


def listing(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("content", [None, b"", b"mine,1", b"mine,"])
def test_new_empty_and_own_files_may_be_written(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "x").write_bytes(content)
    before = listing(tmp_path)
    check_output(tmp_path / "x", MARK)
    assert listing(tmp_path) == before


@pytest.mark.parametrize("content", [b"yours", b"min", b" mine,"])
def test_what_somebody_else_wrote_may_not(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    (tmp_path / "symbolic").symlink_to("x")
    os.link(tmp_path / "x", tmp_path / "hard")
    for name in ("x", "symbolic", "hard"):
        with pytest.raises(OutputError, match=rf"cannot write .*{name}: hyocr did not write what is there"):
            check_output(tmp_path / name, MARK)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "new.csv", "sub/new.csv", "report/eval.json"])
def test_nothing_becomes_a_part_of_a_checkpoint(model: Path, name: str) -> None:
    before = listing(model)
    (model / "sub").mkdir()
    with pytest.raises(OutputError, match="cannot write"):
        check_output(model / name, MARK)
    assert listing(model) == before


def test_the_report_folder_of_a_checkpoint_takes_files(model: Path) -> None:
    check_output(model / "report" / "pages.csv", MARK)
    for folder in (model, model / "sub"):
        with pytest.raises(OutputError, match="it would be taken for a part of the checkpoint"):
            check_output_folder(folder)
    check_output_folder(model.parent / "stats")


@pytest.mark.parametrize("place", ["none/x", "file/x", "/proc/x", "x" * 300, "."])
def test_what_cannot_be_a_file_is_refused(tmp_path: Path, place: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        check_output(tmp_path / place, MARK)
