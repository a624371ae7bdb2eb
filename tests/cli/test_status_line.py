"""What is said before anything slow begins, and while a hub is silent."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from threading import Event

import pytest
from PIL import Image

from hyocr_core import progress
from hyocr_core.checkpoint.resolve import resolve_model
from hyocr_core.errors import CheckpointError
from hyocr_core.pages.sources import draw_pages
from hyocr_core.progress import SILENT_SECONDS, asking, doing, idle, watched

SLOW = "import sys\nsys.stderr.write('<torch>')\nraise SystemExit(0)\n"
"""Stands for torch: says when it is imported."""

COMMANDS = (
    ("quant", "--method", "x", "--model", "y", "--output", "z"),
    ("eval", "x", "--data", "y"),
    ("read", "x", "y"),
    ("verify", "x"),
    ("push", "x", "y"),
    ("doctor",),
)


def on_a_terminal(folder: Path, *typed: str) -> str:
    """What a command writes to a terminal as its stderr."""
    (folder / "torch.py").write_text(SLOW)
    ours, theirs = pty.openpty()
    code = "import sys; from hyocr_core.cli.main import main; main(sys.argv[1:])"
    path = f"{folder}:{os.environ.get('PYTHONPATH', '')}"
    environment = os.environ | {"PYTHONPATH": path, "TERM": "xterm", "COLUMNS": "80"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, *typed], stdin=theirs, stdout=theirs, stderr=theirs, env=environment, cwd=folder
    )
    os.close(theirs)
    written = b""
    while chunk := _read(ours):
        written += chunk
    os.close(ours)
    process.wait()
    return written.decode()


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 4096)
    except OSError:  # Linux says so when the other side is closed
        return b""


@pytest.mark.parametrize("typed", COMMANDS, ids=lambda typed: typed[0])
def test_a_command_says_that_it_loads_before_it_does(typed: tuple[str, ...], tmp_path: Path) -> None:
    before, imported, _ = on_a_terminal(tmp_path, *typed).partition("<torch>")
    assert "loading torch and transformers ..." in before
    assert imported, before


class Seen:
    """Notes what it is told."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.lines: list[str] = []
        self.told = Event()

    def doing(self, text: str) -> None:
        self.done.append(text)

    def say(self, text: str) -> None:
        self.lines.append(text)
        self.told.set()

    def clear(self) -> None:
        self.done.append("")


def test_the_last_watcher_is_told_and_leaves_nothing() -> None:
    first, second = Seen(), Seen()
    doing("nobody hears it")
    with watched(first):
        doing("a")
        with watched(second):
            doing("b")
        doing("c")
        idle()
    assert first.done == ["a", "", "c", "", ""]
    assert second.done == ["b", ""]


def test_a_server_that_is_silent_is_spoken_of_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SILENT_SECONDS < 5
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.05)
    seen = Seen()
    with watched(seen), asking("https://hub.example", "take a folder"):
        assert seen.told.wait(30)
    assert seen.done[0] == "asking https://hub.example"
    assert seen.lines == ["https://hub.example has not answered for 0.05 seconds; take a folder"]


def test_one_that_answers_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.05)
    seen = Seen()
    with watched(seen):
        with asking("https://hub.example", "take a folder"):
            pass
        assert not seen.told.wait(0.2)
    assert seen.lines == []


def test_a_hub_that_cannot_be_reached_is_named_while_it_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import HfApi, constants

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    monkeypatch.setattr(progress, "SILENT_SECONDS", 0.05)
    seen = Seen()

    def model_info(*_: object, **__: object) -> None:
        assert seen.told.wait(30)
        raise OSError("no route to host")

    monkeypatch.setattr(HfApi, "model_info", model_info)
    with watched(seen), pytest.raises(CheckpointError, match="no route to host"):
        resolve_model("owner/name-that-no-cache-has")
    assert seen.done[0] == "asking https://hub.example"
    assert seen.lines == [
        "https://hub.example has not answered for 0.05 seconds; HF_HUB_OFFLINE=1 takes what is in the cache without "
        "asking, HF_ENDPOINT names a mirror"
    ]


def test_the_search_for_copies_says_how_far_it_is(tmp_path: Path) -> None:
    for name in "abc":
        Image.new("RGB", (32, 32), (ord(name), 0, 0)).save(tmp_path / f"{name}.png")
    seen = Seen()
    with watched(seen):
        draw_pages(str(tmp_path), None, None, None, 0, keep_duplicates=False, say=seen.say)
    assert seen.done[0] == f"looking for pages in {tmp_path.name}"
    assert next(text for text in seen.done if "copies among" in text) == "looking for copies among 3 pages: 1"
