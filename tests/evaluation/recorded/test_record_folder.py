from __future__ import annotations

import dataclasses
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError, CheckpointError, OutputError, RunError
from hyocr_core.evaluation.recorded.record_folder import (
    check_recordable,
    load_commands,
    load_earlier,
    load_evaluation,
    load_evaluations,
    pages_key,
    save_command,
    save_eval_command,
    save_evaluation,
)
from hyocr_core.evaluation.recorded.worst import worst_pages
from hyocr_core.evaluation.scores.result import EvalResult
from tests.evaluating import evaluate
from tests.report import built


@pytest.fixture(scope="module")
def result(tiny: Path, noisy: Path) -> EvalResult:
    """Twelve pages, all of them wrong."""
    return evaluate(noisy, drawn(12), baseline=tiny, max_new_tokens=4)


def drawn(count: int, size: tuple[int, int] = (256, 32)) -> list[Record]:
    colours = [(9, 20 * index, 200) for index in range(count)]
    return [
        Record(f"page-{index}", None, "abc def", lambda colour=colour: Image.new("RGB", size, colour))  # type: ignore[misc]
        for index, colour in enumerate(colours)
    ]


def files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in (folder / "report").rglob("*") if path.is_file())


def names(folder: Path) -> list[str]:
    """The files of the only evaluation."""
    return [built.recorded(folder).name, *sorted(path.name for path in built.images(folder).iterdir())]


def test_what_was_saved_comes_back(result: EvalResult, tmp_path: Path) -> None:
    save_evaluation(tmp_path, result, drawn(12))
    assert load_evaluation(tmp_path) == result
    worst = worst_pages(result)
    assert len(worst) == 10
    assert names(tmp_path) == ["eval.json", *(f"{index:05d}.webp" for index in sorted(worst))]


def test_the_images_are_those_of_the_pages(result: EvalResult, tmp_path: Path) -> None:
    records = drawn(12, (2400, 300))
    records.insert(3, dataclasses.replace(records[0], name="failed"))  # a page that could not be evaluated
    save_evaluation(tmp_path, result, records)
    for index in worst_pages(result):
        with Image.open(built.images(tmp_path) / f"{index:05d}.webp") as image:
            assert image.format == "WEBP"
            assert image.size == (1200, 150)
            pixel: Any = image.convert("RGB").getpixel((600, 75))
        assert max(abs(a - b) for a, b in zip(pixel, (9, 20 * index, 200), strict=True)) < 12


def test_small_pages_stay_small_and_the_records_image_is_left_alone(result: EvalResult, tmp_path: Path) -> None:
    image = Image.new("RGB", (3000, 30))
    kept = [dataclasses.replace(record, open_image=lambda: image) for record in drawn(12)]
    save_evaluation(tmp_path, result, kept)
    assert image.size == (3000, 30)
    save_evaluation(tmp_path, result, drawn(12, (64, 32)))
    with Image.open(next(built.images(tmp_path).iterdir())) as small:
        assert small.size == (64, 32)


def test_another_evaluation_of_the_same_pages_leaves_those_before(result: EvalResult, tmp_path: Path) -> None:
    runs = [result.model_copy(update={"peak_rss_bytes": size}) for size in (1, 2, 3)]
    for number, run in enumerate(runs, 1):
        save_evaluation(tmp_path, run, drawn(12))
        save_eval_command(tmp_path, run, ["hyocr", "eval", str(number)])
    (newest,), earlier = load_evaluations(tmp_path), load_earlier(tmp_path)
    found = [newest, *earlier]
    assert [each.result for each in found] == runs[::-1]
    assert [each.name for each in found] == [f"{pages_key(result)[:8]}:{run}" for run in (3, 2, 1)]
    assert [each.command for each in found] == [f"hyocr eval {run}" for run in (3, 2, 1)]
    for each in found:
        shown = sorted(path.name for path in each.images.iterdir())
        assert shown == [f"{index:05d}.webp" for index in sorted(worst_pages(each.result))]
    assert len(list((tmp_path / "report").rglob("pages-*"))) == 3


def test_the_very_same_evaluation_is_kept_once(result: EvalResult, tmp_path: Path) -> None:
    for _ in range(2):
        save_evaluation(tmp_path, result, drawn(12))
    assert load_earlier(tmp_path) == ()
    assert [each.run for each in load_evaluations(tmp_path)] == [1]


def test_evaluations_of_other_pages_are_kept_the_largest_first(result: EvalResult, tiny: Path, tmp_path: Path) -> None:
    small = evaluate(tiny, drawn(2), max_new_tokens=2)
    for each, count in ((result, 12), (small, 2)):
        save_evaluation(tmp_path, each, drawn(count))
        save_eval_command(tmp_path, each, ["hyocr", "eval", str(count)])
    found = load_evaluations(tmp_path)
    assert [each.result for each in found] == [result, small]
    assert [each.command for each in found] == ["hyocr eval 12", "hyocr eval 2"]
    assert [len(list(each.images.iterdir())) for each in found] == [10, 2]
    assert load_evaluation(tmp_path) == result


def test_of_as_many_pages_the_last_that_was_noted_comes_first(tiny: Path, tmp_path: Path) -> None:
    for turn in ("ab", "ba"):
        for text in turn:
            pages = [dataclasses.replace(record, answer=text) for record in drawn(2)]
            found = evaluate(tiny, pages, max_new_tokens=2)
            save_evaluation(tmp_path, found, pages)
            save_eval_command(tmp_path, found, ["hyocr", "eval", text])
        assert [each.command for each in load_evaluations(tmp_path)] == [f"hyocr eval {text}" for text in turn[::-1]]


def test_the_same_evidence_is_the_same_bytes(result: EvalResult, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        save_evaluation(tmp_path / name, result, drawn(12))
    for file in files(tmp_path / "one"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_a_page_whose_image_is_gone_has_none(result: EvalResult, tmp_path: Path) -> None:
    def gone() -> Any:
        raise CalibrationError("no such file")

    records, first = drawn(12), worst_pages(result)[0]
    records[first] = dataclasses.replace(records[first], open_image=gone)
    save_evaluation(tmp_path, result, records)
    assert len(files(tmp_path)) == 1 + 9
    assert load_evaluation(tmp_path) == result


@pytest.mark.parametrize("renamed", [0, 1])
def test_a_crash_leaves_the_old_evaluation_with_its_own_pages(
    renamed: int, result: EvalResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_evaluation(tmp_path, result, drawn(12))
    before, changed = built.images(tmp_path), result.model_copy(update={"peak_rss_bytes": 7})

    replace, left_to_do = Path.replace, [None] * renamed

    def crash(self: Path, target: Path) -> Path:
        if not left_to_do:
            raise KeyboardInterrupt
        left_to_do.pop()
        return replace(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", crash)
        with pytest.raises(KeyboardInterrupt):
            save_evaluation(tmp_path, changed, drawn(12, (64, 32)))
    (left,) = load_evaluations(tmp_path)
    assert (left.result, left.images) == (result, before)
    save_evaluation(tmp_path, changed, drawn(12))
    assert load_evaluation(tmp_path) == changed
    assert built.images(tmp_path) != before
    assert [(each.result, each.images) for each in load_earlier(tmp_path)] == [(result, before)]


def test_a_crash_before_that_leaves_what_there_was(result: EvalResult, tmp_path: Path) -> None:
    save_evaluation(tmp_path, result, drawn(12))
    before = {file: (tmp_path / file).read_bytes() for file in files(tmp_path)}

    def crash() -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        save_evaluation(tmp_path, result, [dataclasses.replace(record, open_image=crash) for record in drawn(12)])
    assert {file: (tmp_path / file).read_bytes() for file in files(tmp_path)} == before


def test_nothing_recorded_is_nothing(tmp_path: Path) -> None:
    assert load_evaluation(tmp_path) is None
    assert load_commands(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "eval.json: cannot be read as JSON"),
        ("[]", "eval.json: must hold a JSON object, not list"),
        ("{}", "eval.json: has schema None, this hyocr reads 4; evaluate again"),
        ('{"schema_version": 2}', "eval.json: has schema 2, this hyocr reads 4; evaluate again"),
        ('{"schema_version": 3, "hyocr": 7}', "eval.json: "),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path: Path, text: str, complaint: str) -> None:
    place = tmp_path / "report" / "evaluations" / "0123456789abcdef"
    place.mkdir(parents=True)
    (place / "eval.json").write_text(text)
    with pytest.raises(CheckpointError) as caught:
        load_evaluation(tmp_path)
    assert complaint in str(caught.value)
    assert "\n" not in str(caught.value)


def test_commands_come_back_as_a_shell_reads_them(tmp_path: Path) -> None:
    argv = ["hyocr", "quant", "--calib", "my pages/é", "-o", "ignore=['a b']"]
    save_command(tmp_path, "quant", argv)
    save_command(tmp_path, "eval", ["hyocr", "eval", "old"])
    save_command(tmp_path, "eval", ["hyocr", "eval", "new"])
    commands = load_commands(tmp_path)
    assert shlex.split(commands["quant"]) == argv
    assert commands["eval"] == "hyocr eval new"
    assert list(commands) == ["quant", "eval"]
    (tmp_path / "report" / "commands.json").write_text("nonsense")
    with pytest.raises(CheckpointError, match=r"commands\.json: cannot be read as JSON"):
        load_commands(tmp_path)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_recordable(tmp_path)
    with pytest.raises(OutputError, match="none: it is no local folder"):
        check_recordable(tmp_path / "none")
    (tmp_path / "blocked").mkdir()
    (tmp_path / "blocked" / "report").write_text("")
    with pytest.raises(OutputError, match="report is in the way and no folder"):
        check_recordable(tmp_path / "blocked")
    monkeypatch.setattr("os.access", lambda *_: False)  # the tests may run as root, who may write everywhere
    with pytest.raises(OutputError, match="is not writable"):
        check_recordable(tmp_path)


def test_a_full_disk_is_one_line(result: EvalResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("hyocr_core.evaluation.recorded.record_folder.save_bytes", full)
    with pytest.raises(RunError, match=r"cannot record in .*No space left"):
        save_evaluation(tmp_path, result, drawn(12))


def test_reading_evidence_needs_no_torch() -> None:
    code = (
        "import sys, hyocr_core.evaluation.recorded.record_folder;"
        "print('torch' in sys.modules or 'transformers' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
