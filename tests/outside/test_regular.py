"""Only regular files are opened; everything else that a folder can hold is refused by its kind, at once."""

from __future__ import annotations

import os
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from hyocr_core.outside import regular
from hyocr_core.outside.regular import IrregularFileError, check_folder, open_regular, read_regular, read_text
from tests.conftest import REPO


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link_to_pipe(path: Path) -> None:
    os.mkfifo(path.with_name("pipe"))
    path.symlink_to("pipe")


def zeros(path: Path) -> None:
    path.symlink_to("/dev/zero")


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(os.path.relpath(path))


IRREGULAR = {"a named pipe": pipe, "a socket": listening, "a device": zeros}

Make = Callable[[Path], None]


@pytest.mark.parametrize("kind", IRREGULAR)
def test_what_is_no_file_is_refused_by_its_kind(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    IRREGULAR[kind](path)
    for read in (open_regular, read_regular, read_text, regular.check_regular):
        with pytest.raises(IrregularFileError) as caught:
            read(path)
        assert caught.value.strerror == f"it is {kind}, not a file"
        assert caught.value.filename == str(path)
    with pytest.raises(IrregularFileError, match=kind):
        check_folder(tmp_path)


def test_a_file_that_becomes_a_pipe_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "x")
    monkeypatch.setattr(regular, "check_regular", lambda _path: None)
    with pytest.raises(IrregularFileError, match="a named pipe"):
        open_regular(tmp_path / "x")


OPENED_ELSEWHERE = {
    "doctor/machine.py",  # /proc and /sys
    "pages/template_renderer.py",  # /proc, in a program of its own
    "plugin/scaffold.py",  # files of the package
    "report/example_requests.py",  # the text of an example
    "runtimes/vllm_runner.py",  # in an interpreter without hyocr, after the folder was looked at
    "testing/generations.py",
    "testing/layout.py",
}
"""Where the core opens what is its own, or the system's."""


def test_nothing_else_opens_files_from_outside() -> None:
    core = REPO / "hyocr_core"
    opens = re.compile(r"\.read_(text|bytes)\(|\.open\(\"rb?\"|(?<![.\w])(?<!def )open\(|ModelCard\.load\(")
    found = {
        str(path.relative_to(core)) for path in core.rglob("*.py") if opens.search(path.read_text(encoding="utf-8"))
    }
    assert found == OPENED_ELSEWHERE


def test_other_errors_are_the_usual_ones(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_regular(tmp_path / "missing")
    with pytest.raises(IsADirectoryError):
        read_regular(tmp_path)


def test_a_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"\xef\xbb\xbfa\r\nb\n")
    (tmp_path / "link").symlink_to("x")
    assert read_regular(tmp_path / "link") == b"\xef\xbb\xbfa\r\nb\n"
    assert read_text(tmp_path / "x", "utf-8-sig") == (tmp_path / "x").read_text(encoding="utf-8-sig") == "a\nb\n"
    with open_regular(tmp_path / "x") as file:
        assert file.read(1) == b"\xef"


def test_no_more_is_read_than_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x.json").write_bytes(b"12345")
    assert read_regular(tmp_path / "x.json", 5) == b"12345"
    with pytest.raises(IrregularFileError, match="it has more than 4 bytes"):
        read_regular(tmp_path / "x.json", 4)
    os.truncate(tmp_path / "x.json", 1 << 40)
    with pytest.raises(IrregularFileError, match="it has more than 268,435,456 bytes"):
        read_regular(tmp_path / "x.json")
    with pytest.raises(IrregularFileError, match="it has more than 268,435,456 bytes"):
        check_folder(tmp_path, (".json",))
    check_folder(tmp_path, (".jinja",))


def test_a_folder_may_hold_folders_links_to_nothing_and_what_is_hidden(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "broken").symlink_to("nowhere")
    os.mkfifo(tmp_path / ".hidden")
    check_folder(tmp_path)
