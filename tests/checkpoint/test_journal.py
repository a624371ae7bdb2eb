"""The journal: what it keeps, and when it refuses to go on."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.sealed import seal
from hyocr_core.contract.config import FrozenModel
from hyocr_core.errors import OutputError, RunError

PRINT: dict[str, Any] = {
    "options": {"group_size": 128, "ignore": ["lm_head"]},
    "model": {"model.safetensors": "ab" * 32},
    "versions": {"torch": "2.13.0"},
    "seed": 0,
}


class Done(FrozenModel):
    shape: tuple[int, int]
    error: float = 0.0
    note: str | None = None


class Record(BaseModel):
    model_config = ConfigDict(extra="forbid")

    embedded: int | None = None
    blocks: dict[str, Done] = Field(default_factory=dict)


def resumed(path: Path, fingerprint: dict[str, Any] = PRINT) -> Journal[Record]:
    return Journal.resume(path, fingerprint, Record)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.json"


def test_the_record_comes_back(path: Path) -> None:
    journal = Journal.start(path, PRINT, Record())
    journal.record.embedded = 3
    journal.record.blocks["0"] = Done(shape=(1, 2), error=0.1, note="混元")
    journal.save()
    journal.record.blocks["1"] = Done(shape=(3, 4))
    journal.save()
    assert resumed(path).record == Record(
        embedded=3, blocks={"0": Done(shape=(1, 2), error=0.1, note="混元"), "1": Done(shape=(3, 4))}
    )


def test_what_was_not_saved_is_not_there(path: Path) -> None:
    journal = Journal.start(path, PRINT, Record(embedded=1))
    journal.record.embedded = 2
    assert resumed(path).record.embedded == 1


def test_a_resumed_journal_goes_on(path: Path) -> None:
    Journal.start(path, PRINT, Record(embedded=1))
    journal = resumed(path)
    journal.record.blocks["0"] = Done(shape=(1, 2))
    journal.save()
    assert resumed(path).record == Record(embedded=1, blocks={"0": Done(shape=(1, 2))})


@pytest.mark.parametrize("number", [0.1, 1 / 3, 1e-300, 123456789.0])
def test_the_first_run_sees_what_a_resumed_one_sees(path: Path, number: float) -> None:
    journal = Journal.start(path, PRINT, Record())
    journal.record.blocks["0"] = Done(shape=(1, 2), error=number)
    journal.save()
    assert journal.record == resumed(path).record


def test_tuples_in_the_fingerprint_do_not_count_as_a_change(path: Path) -> None:
    Journal.start(path, {"ignore": ("a", "b")}, Record())
    resumed(path, {"ignore": ("a", "b")})


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
    Journal.start(path, PRINT, Record())
    with pytest.raises(OutputError) as caught:
        resumed(path, PRINT | changed)
    assert said in str(caught.value)
    assert str(path.parent) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "{}", '{"format": 2, "fingerprint": [], "record": {}}', '{"format": 2}']
)
def test_unreadable(path: Path, content: str) -> None:
    path.write_text(content, encoding="utf-8")
    with pytest.raises(OutputError, match="cannot resume"):
        resumed(path)


@pytest.mark.parametrize("sealed", [False, True])
def test_a_journal_of_another_format_is_told_from_a_damaged_one(path: Path, sealed: bool) -> None:
    content = {"format": 4 if sealed else 2, "fingerprint": PRINT, "entries": {}, "record": {}}
    path.write_bytes(seal(content) if sealed else json.dumps(content).encode())
    with pytest.raises(
        OutputError, match=rf"^cannot resume: {path} is of another hyocr; --fresh starts again, without {path.parent}"
    ):
        resumed(path)


@pytest.mark.parametrize("record", [None, [], {"blocks": {"0": {}}}, {"embedded": "many"}, {"unknown": 1}])
def test_a_record_of_another_kind_is_one_line(path: Path, record: Any) -> None:
    path.write_bytes(seal({"format": 3, "fingerprint": PRINT, "record": record}))
    with pytest.raises(
        OutputError, match=rf"^cannot resume: {path} is unreadable; --fresh starts again, without {path.parent}$"
    ):
        resumed(path)


@pytest.mark.parametrize("position", range(0, 700, 37))
def test_a_flipped_bit_is_noticed_wherever_it_is(path: Path, position: int) -> None:
    Journal.start(path, PRINT, Record(embedded=1, blocks={"0": Done(shape=(1, 2), error=0.25)}))
    content = bytearray(path.read_bytes())
    assert len(content) < 700
    before = json.loads(content)
    content[position % len(content)] ^= 4
    path.write_bytes(content)
    try:
        told = json.loads(content) != before
    except ValueError:
        told = True
    if told:
        with pytest.raises(OutputError, match=r"cannot resume: .* is unreadable"):
            resumed(path)
    else:
        assert resumed(path).record.embedded == 1


@pytest.mark.parametrize("changed", [False, True])
def test_nothing_is_noted_that_nobody_vouches_for(path: Path, changed: bool) -> None:
    seen: list[int] = []

    def vouch() -> None:
        seen.append(1)
        if changed and len(seen) > 1:
            raise RunError("a file was replaced")

    journal = Journal.start(path, PRINT, Record(embedded=1), vouch)
    journal.record.embedded = 2
    if changed:
        with pytest.raises(RunError, match="replaced"):
            journal.save()
    else:
        journal.save()
    assert resumed(path).record.embedded == (1 if changed else 2)


def test_missing(path: Path) -> None:
    with pytest.raises(OutputError, match="cannot resume"):
        resumed(path)


def test_a_full_disk_is_one_line_and_keeps_the_journal(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = Journal.start(path, PRINT, Record(embedded=1))

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    journal.record.embedded = 2
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RunError, match=r"No space left on device.*the same command again"):
            journal.save()
    assert resumed(path).record == Record(embedded=1)
