"""Files that a long run reads from: what counts as another file, and what does not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hyocr_core.checkpoint.reader import CheckpointReader, digest
from hyocr_core.checkpoint.unchanged import Unchanged
from hyocr_core.errors import RunError


@pytest.fixture
def path(model: Path) -> Path:
    return model / "model.safetensors"


@pytest.fixture
def unchanged(model: Path) -> Unchanged:
    found = Unchanged(CheckpointReader(model))
    assert found.digests == CheckpointReader(model).digests()
    return found


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def write_over(path: Path) -> None:
    path.write_bytes(flipped(path.read_bytes()))


def replace(path: Path) -> None:
    new = path.with_name(".new")
    new.write_bytes(flipped(path.read_bytes()))
    new.replace(path)


def write_over_unseen(path: Path) -> None:
    """Of the same length and time stamps, as after a clock that was set back."""
    stat = path.stat()
    write_over(path)
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


@pytest.mark.parametrize("change", [write_over, replace, write_over_unseen])
def test_other_bytes_are_named(change: Callable[[Path], None], unchanged: Unchanged, path: Path) -> None:
    unchanged.check()
    change(path)
    with pytest.raises(RunError, match=rf"^{path} was replaced while the run was going on: put back"):
        unchanged.check()


def test_what_was_put_back_is_as_good(unchanged: Unchanged, path: Path) -> None:
    before = path.read_bytes()
    write_over(path)
    path.write_bytes(before)
    unchanged.check()
    assert unchanged.damaged() is None


def test_the_same_bytes_are_the_same_file(unchanged: Unchanged, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Touched, copied over itself, with another mode; it is read once for each, and no more."""
    read: list[Path] = []

    def noted(path: Path) -> str:
        read.append(path)
        return digest(path)

    monkeypatch.setattr("hyocr_core.checkpoint.unchanged._digest", noted)
    path.touch()
    unchanged.check()
    shutil.copyfile(path, path.with_name(".copy"))
    path.with_name(".copy").replace(path)
    unchanged.check()
    path.chmod(0o400)
    unchanged.check()
    unchanged.check()
    assert read == [path] * 3


def test_a_file_that_is_gone(unchanged: Unchanged, path: Path) -> None:
    path.unlink()
    with pytest.raises(RunError, match=rf"^{path} cannot be read any more: No such file"):
        unchanged.check()


def test_bytes_that_changed_by_themselves(unchanged: Unchanged, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert unchanged.damaged() is None
    monkeypatch.setattr("hyocr_core.checkpoint.unchanged._look", lambda _path: (0,))
    write_over(path)
    assert unchanged.damaged() == path
