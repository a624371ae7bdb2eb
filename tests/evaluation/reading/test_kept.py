from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hyocr_core.checkpoint.sealed import seal, unseal
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import RunError
from hyocr_core.evaluation.reading.kept import BatchReading, BatchRecord, Kept, default_state, keeping
from hyocr_core.evaluation.reading.local import read_batch
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.evaluation.scores.score import Answer, Gap
from hyocr_core.progress import Silent
from tests.evaluating import evaluate

pytestmark = pytest.mark.needs_methods

MakePages = Callable[..., list[Record]]

READING = BatchReading(answers=(Answer("漢字 é\n", 7, ended=True),), seconds=0.1, first_token=0.05)
GAPS = (Gap(7, 6, 0.1 + 0.2),)
BATCH = BatchRecord(pages=(3,), readings={"model": READING, "baseline": READING}, gaps={"model": GAPS})


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


class StopError(Exception):
    pass


def stop_after(kept: Kept, *batches: BatchRecord) -> None:
    for number, batch in enumerate(batches):
        kept.add(f"batch-{number:06d}", batch)
    raise StopError


def interrupted(root: Path, fingerprint: dict[str, Any]) -> None:
    with pytest.raises(StopError), keeping(root, fingerprint, resume=True, progress=Silent()) as kept:
        stop_after(kept, BATCH)


def test_what_was_kept_comes_back_as_it_was(tmp_path: Path) -> None:
    interrupted(tmp_path, {"a": 1})
    with keeping(tmp_path, {"a": 1}, resume=True, progress=Silent()) as kept:
        assert kept.batches == {"batch-000000": BATCH}
    assert list(tmp_path.iterdir()) == [], "nothing stays when the evaluation is done"


@pytest.mark.parametrize(("fingerprint", "resume"), [({"a": 2}, True), ({"a": 1, "b": None}, True), ({"a": 1}, False)])
def test_another_evaluation_or_a_wish_begins_anew(tmp_path: Path, fingerprint: dict[str, Any], resume: bool) -> None:
    interrupted(tmp_path, {"a": 1})
    with keeping(tmp_path, fingerprint, resume=resume, progress=Silent()) as kept:
        assert kept.batches == {}


def test_a_failure_before_the_first_batch_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(StopError), keeping(tmp_path, {"a": 1}, resume=True, progress=Silent()) as kept:
        stop_after(kept)
    assert list(tmp_path.iterdir()) == []


def test_two_at_once_do_not_meet(tmp_path: Path) -> None:
    said = Said()
    with keeping(tmp_path, {"a": 1}, resume=True, progress=Silent()) as first:
        first.add("batch-000000", BATCH)
        with keeping(tmp_path, {"a": 1}, resume=True, progress=said) as second:
            assert second.batches == {}
            second.add("batch-000001", BATCH)
        assert "runs already" in said.lines[0]
        (folder,) = tmp_path.iterdir()  # the first still holds it
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700, "pages may be confidential"
        assert list(first.batches) == ["batch-000000"]


def test_a_killed_process_leaves_what_it_read(tmp_path: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from hyocr_core.evaluation.reading.kept import *\n"
        "from hyocr_core.progress import Silent\n"
        "with keeping(Path(sys.argv[1]), {'a': 1}, resume=True, progress=Silent()) as kept:\n"
        "    kept.add('batch-000000', BatchRecord.model_validate_json(sys.argv[2]))\n"
        "    os.kill(os.getpid(), 9)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), BATCH.model_dump_json()], check=False)
    assert done.returncode == -9
    with keeping(tmp_path, {"a": 1}, resume=True, progress=Silent()) as kept:
        assert kept.batches == {"batch-000000": BATCH}


def another(**changes: Any) -> bytes:
    """A batch that is sealed as it should be, with other fields."""
    return seal({**BATCH.model_dump(mode="json"), **changes})


ANSWER = {"text": "a", "tokens": 1, "ended": True}
DAMAGED: dict[str, bytes] = {
    "torn": b"{",
    "empty": b"",
    "not sealed": BATCH.model_dump_json().encode(),
    "a flipped digit": seal(BATCH.model_dump(mode="json")).replace(b'"tokens": 7', b'"tokens": 6', 1),
    "deep": b"[" * 100_000,
    "no readings": another(readings={}),
    "more pages than answers": another(pages=[3, 4]),
    "fewer gaps than pages": another(gaps={"model": []}),
    "more answers than pages": another(
        readings={"model": {"answers": [ANSWER, ANSWER], "seconds": 0.1, "first_token": None}}
    ),
    "a count that is text": another(readings={"model": {"answers": [{**ANSWER, "tokens": "many"}], "seconds": 0.1}}),
    "pages that are text": another(pages="3"),
    "another's key": another(role="model"),
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_damaged_state_is_read_again_saying_so(tmp_path: Path, damage: str) -> None:
    interrupted(tmp_path, {"a": 1})
    (folder,) = tmp_path.iterdir()
    path, good = folder / "batch-000000.json", (folder / "batch-000000.json").read_bytes()
    path.write_bytes(DAMAGED[damage])
    said = Said()
    with keeping(tmp_path, {"a": 1}, resume=True, progress=said) as kept:
        assert kept.batches == {}
        assert said.lines == [f"{path} is damaged: its pages are read again"]
        kept.add("batch-000000", BATCH)
        assert path.read_bytes() == good


def test_a_batch_of_other_pages_is_not_taken_for_these(tmp_path: Path) -> None:
    with keeping(tmp_path, {"a": 1}, resume=True, progress=Silent()) as kept:
        kept.add("batch-000000", BATCH)
        assert kept.has("batch-000000", [3])
        assert not kept.has("batch-000000", [4])
        assert not kept.has("batch-000001", [3])


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with keeping(tmp_path, {"a": 1}, resume=True, progress=Silent()) as kept:
        kept.add("batch-000000", BATCH)
        with monkeypatch.context() as patch:
            patch.setattr("hyocr_core.evaluation.reading.kept.save_bytes", full)
            with pytest.raises(RunError, match=r"batch-000001\.json: .*No space left.*is kept"):
                kept.add("batch-000001", BATCH)


def test_nothing_is_kept_without_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with keeping(None, {}, resume=True, progress=Silent()) as kept:
        kept.add("batch-000000", BATCH)
        assert kept.batches == {"batch-000000": BATCH}
    assert list(tmp_path.iterdir()) == []


def test_the_default_is_the_users_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_state() == tmp_path / "hyocr" / "eval"
    for relative in ("", "here"):  # the specification has relative paths ignored
        monkeypatch.setenv("XDG_CACHE_HOME", relative)
        assert default_state() == Path.home() / ".cache" / "hyocr" / "eval"


class Evaluation:
    """Evaluations that may be stopped, and the pages that each has read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
        self._patch = monkeypatch
        self._state = state

    def __call__(self, *arguments: Any, stop_after: int | None = None, **options: Any) -> tuple[EvalResult, list[int]]:
        read: list[int] = []

        def watched(pages: list[int], *others: Any, **options: Any) -> BatchRecord:
            if stop_after is not None and len(read) >= stop_after:
                raise KeyboardInterrupt
            read.extend(pages)
            return read_batch(pages, *others, **options)

        self._patch.setattr("hyocr_core.evaluation.reading.read_pages.read_batch", watched)
        return evaluate(*arguments, state=self._state, batch_size=options.pop("batch_size", 2), **options), read

    def stopped(self, *arguments: Any, after: int, **options: Any) -> None:
        """Read batches until they hold `after` pages, then stop."""
        with pytest.raises(KeyboardInterrupt):
            self(*arguments, stop_after=after, **options)


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Evaluation:
    return Evaluation(monkeypatch, tmp_path / "state")


def comparable(result: EvalResult) -> str:
    data = result.model_dump(mode="json")
    del data["peak_rss_bytes"]
    for side in (side for side in ("model", "baseline", "rounded") if data[side] is not None):
        for name in [key for key in data[side] if "second" in key]:
            del data[side][name]
    return json.dumps(data)


def test_an_interrupted_evaluation_gives_what_a_straight_one_does(
    tiny: Path, noisy: Path, pages: MakePages, run: Evaluation
) -> None:
    straight = evaluate(noisy, pages(7), baseline=tiny, batch_size=2)  # in batches of 2, 1, 2 and 2 pages
    run.stopped(noisy, pages(7), baseline=tiny, after=2)
    run.stopped(noisy, pages(7), baseline=tiny, after=1)
    result, read = run(noisy, pages(7), baseline=tiny)
    assert comparable(result) == comparable(straight)
    assert len(read) == 4, "2 and 1 of 7 pages were read before"
    _, again = run(noisy, pages(7), baseline=tiny)
    assert len(again) == 7, "a finished evaluation leaves nothing"


def test_an_interrupted_evaluation_with_rounding_goes_on_too(
    tiny: Path, by_rtn: Path, pages: MakePages, run: Evaluation
) -> None:
    straight = evaluate(by_rtn, pages(4), baseline=tiny, rounded=True, batch_size=2)
    run.stopped(by_rtn, pages(4), baseline=tiny, rounded=True, after=2)
    result, read = run(by_rtn, pages(4), baseline=tiny, rounded=True)
    assert len(read) == 2
    assert comparable(result) == comparable(straight)
    assert result.layers, "the diagnosis of the first batch is kept"
    run.stopped(by_rtn, pages(4), baseline=tiny, after=2)
    _, read = run(by_rtn, pages(4), baseline=tiny, rounded=True)
    assert len(read) == 4, "what was kept lacks a reading"


def test_time_counts_every_run(tiny: Path, pages: MakePages, run: Evaluation, tmp_path: Path) -> None:
    run.stopped(tiny, pages(4), after=2)
    (path,) = (tmp_path / "state").glob("*/batch-*.json")
    kept = unseal(path.read_bytes())
    kept["readings"]["model"] |= {"seconds": 1000.0, "first_token": 500.0}
    path.write_bytes(seal(kept))
    result, _ = run(tiny, pages(4))
    assert 1000 < result.model.seconds < 1100
    assert result.model.pages_per_second == 4 / result.model.seconds
    assert result.model.first_token_seconds is not None
    assert 250 < result.model.first_token_seconds < 300, "two of four pages waited 500 s"


@pytest.mark.parametrize(
    "change", ["model", "baseline", "image", "transcript", "question", "tokens", "penalty", "batch", "pages"]
)
def test_a_change_reads_every_page_again(
    tiny: Path, noisy: Path, pages: MakePages, run: Evaluation, change: str
) -> None:
    given: dict[str, Any] = {
        "model": noisy,
        "baseline": tiny,
        "max_new_tokens": 4,
        "batch_size": 2,
        "records": pages(4),
    }
    run.stopped(given.pop("model"), given.pop("records"), after=2, **given)
    model, records = tiny if change == "model" else noisy, pages(4)
    if change == "image":
        records[3] = records[3].__class__(**vars(records[3]) | {"open_image": pages(6)[5].open_image})
    elif change in ("transcript", "question"):
        field = "answer" if change == "transcript" else "question"
        records[3] = records[3].__class__(**vars(records[3]) | {field: "another"})
    elif change == "pages":
        records = records[:3]
    changed: dict[str, dict[str, Any]] = {
        "baseline": {"baseline": noisy},
        "tokens": {"max_new_tokens": 5},
        "penalty": {"repetition_penalty": 1.5},
        "batch": {"batch_size": 1},
    }
    _, read = run(model, records, **given | changed.get(change, {}))
    assert sorted(read) == list(range(len(records)))


def test_a_checkpoint_changed_in_its_place_is_read_again(tiny: Path, pages: MakePages, run: Evaluation) -> None:
    config = tiny / "generation_config.json"
    before = config.read_bytes(), config.stat()
    run.stopped(tiny, pages(3), after=1)
    try:
        config.write_text(json.dumps({"eos_token_id": [1], "max_new_tokens": 3}))
        _, read = run(tiny, pages(3))
    finally:
        config.write_bytes(before[0])
        os.utime(config, ns=(before[1].st_atime_ns, before[1].st_mtime_ns))
    assert sorted(read) == [0, 1, 2]
