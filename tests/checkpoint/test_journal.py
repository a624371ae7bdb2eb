"""The journal: what it keeps, and when it refuses to go on."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.errors import OutputError, RunError

PRINT: dict[str, Any] = {
    "options": {"group_size": 128, "ignore": ["lm_head"]},
    "model": {"model.safetensors": "ab" * 32},
    "versions": {"torch": "2.13.0"},
    "seed": 0,
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.json"


def test_entries_come_back(path: Path) -> None:
    journal = Journal.start(path, PRINT)
    journal.record("block-0", {"layers": [{"error": 0.1}], "note": "混元"})
    journal.record("block-1", None)
    assert Journal.resume(path, PRINT).entries == {
        "block-0": {"layers": [{"error": 0.1}], "note": "混元"},
        "block-1": None,
    }


def test_a_resumed_journal_goes_on(path: Path) -> None:
    Journal.start(path, PRINT).record("a", 1)
    Journal.resume(path, PRINT).record("b", 2)
    assert Journal.resume(path, PRINT).entries == {"a": 1, "b": 2}


def test_the_first_run_sees_what_a_resumed_one_sees(path: Path) -> None:
    journal = Journal.start(path, PRINT)
    journal.record("a", {"shape": (1, 2), 3: 4})
    assert journal.entries == Journal.resume(path, PRINT).entries


def test_tuples_in_the_fingerprint_do_not_count_as_a_change(path: Path) -> None:
    Journal.start(path, {"ignore": ("a", "b")})
    Journal.resume(path, {"ignore": ("a", "b")})


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"options": {"group_size": 64, "ignore": ["lm_head"]}}, "options.group_size: 128 -> 64;"),
        ({"options": {"group_size": 128, "ignore": []}}, 'options.ignore: ["lm_head"] -> [];'),
        ({"model": {"model.safetensors": "cd" * 32}}, "model.model.safetensors: abababababab… -> cdcdcdcdcdcd…;"),
        ({"versions": {"torch": "2.14.0"}}, "versions.torch: 2.13.0 -> 2.14.0;"),
        ({"versions": {}}, "versions.torch: 2.13.0 -> absent;"),
        ({"versions": {"torch": "2.13.0", "numpy": "2"}}, "versions.numpy: absent -> 2;"),
        ({"versions": "none"}, 'versions: {"torch": "2.13.0"} -> none;'),
        ({"seed": 1, "versions": {"torch": "3"}}, "versions.torch: 2.13.0 -> 3; seed: 0 -> 1;"),
    ],
)
def test_a_change_is_refused_by_name(path: Path, changed: dict[str, Any], said: str) -> None:
    Journal.start(path, PRINT)
    with pytest.raises(OutputError) as caught:
        Journal.resume(path, PRINT | changed)
    assert said in str(caught.value)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": 1, "fingerprint": [], "entries": {}}', '{"format": 2}']
)
def test_unreadable(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(OutputError, match="cannot resume"):
        Journal.resume(path, PRINT)


def test_missing(path: Path) -> None:
    with pytest.raises(OutputError, match="cannot resume"):
        Journal.resume(path, PRINT)


def test_a_full_disk_is_one_line_and_keeps_the_journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.start(path, PRINT)
    journal.record("a", 1)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"No space left on device.*--resume"):
            journal.record("b", 2)
    assert Journal.resume(path, PRINT).entries == {"a": 1}
