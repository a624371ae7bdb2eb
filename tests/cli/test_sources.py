"""Sources of pages as a user meets them, through both commands."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image
from rich.console import Console

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.cli.main import main
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.terminal.evaluation_table import eval_table

pytestmark = pytest.mark.needs_methods

Run = Callable[..., Result]


@pytest.fixture
def quant(demo: Path, tmp_path: Path) -> Run:
    """Quantizes the demo checkpoint, or evaluates it, on a source."""

    def run(source: object, *arguments: str, output: str = "out") -> Result:
        given = ["--method", "gptq", "--model", str(demo), "--output", str(tmp_path / output), "--calib", str(source)]
        return CliRunner().invoke(main, ["quant", *given, *arguments])

    return run


def evaluate(model: Path, source: object, *arguments: str) -> Result:
    given = ["eval", str(model), "--data", str(source), "--max-new-tokens", "2", *arguments]
    return CliRunner().invoke(main, given)


def test_a_mixture_is_calibrated_on_and_its_pages_are_known_to_eval(quant: Run, tmp_path: Path) -> None:
    result = quant("synthetic:2,synthetic:6", "--num-samples", "400")
    assert result.exit_code == 0, result.stderr
    copies = {f"synthetic:{place} (source 2)": f"has the same pixels as synthetic:{place}" for place in range(2)}
    named = " ".join(f"- {name} {why}" for name, why in copies.items())
    assert f"left out 2 duplicates (--keep-duplicates keeps them): {named}" in lines(result)
    assert "warning: 6 pages to calibrate on; fewer than 32 show a method little of what" in lines(result)
    calibration = read_report(tmp_path / "out").calibration
    assert calibration is not None
    assert (calibration.source, calibration.samples) == ("synthetic:2,synthetic:6", 6)
    assert len(set(calibration.page_sha256)) == 6
    assert calibration.copies == copies
    seen = evaluate(tmp_path / "out", "synthetic:8")
    assert seen.exit_code == 0, seen.stderr
    assert "warning: calibration saw 6 of these 8 pages; held-out pages would say more\n" in seen.stderr


def lines(result: Result) -> str:
    """What was said, without the breaks of a terminal's lines."""
    return " ".join(result.stderr.split())


def save_pages(folder: Path, count: int) -> dict[str, str]:
    """Pages, every second with a transcript, a copy of the first, and a file that is no page; return what is none."""
    folder.mkdir()
    for place in range(count):
        Image.effect_noise((64, 32), 10 + place).save(folder / f"{place:02}.png")
        if place % 2:
            (folder / f"{place:02}.txt").write_text("abc")
    shutil.copy(folder / "00.png", folder / "copy.png")
    (folder / "notes.docx").write_bytes(b"")
    return {"notes.docx": "no image or PDF file by its name", "copy.png": "has the same pixels as 00.png"}


def test_a_plan_names_what_it_leaves_out_and_warns_of_few_pages(quant: Run, tmp_path: Path) -> None:
    few, many = (save_pages(tmp_path / name, count) for name, count in (("few", 31), ("many", 32)))
    for name, count, left_out in (("few", 31, few), ("many", 32, many)):
        planned = quant(tmp_path / name, "--dry-run", "--json")
        assert planned.exit_code == 0, planned.stderr
        plan = json.loads(planned.stdout)["calibration"]
        assert (plan["samples"], plan["left_out"]) == (count, left_out)
        assert "left out 1 file, notes.docx: no image or PDF file by its name" in lines(planned)
        assert "left out 1 duplicate (--keep-duplicates keeps them): - copy.png has the same pixels as 00.png" in lines(
            planned
        )
        assert ("31 pages to calibrate on; fewer than 32" in lines(planned)) == (count == 31)


def test_a_page_of_one_colour_is_warned_of_by_name(quant: Run, tmp_path: Path) -> None:
    save_pages(tmp_path / "pages", 3)
    Image.new("RGB", (64, 32), "black").save(tmp_path / "pages" / "black.png")
    planned = quant(tmp_path / "pages", "--dry-run")
    assert "black.png: warning: this page is nearly of one colour; look at it" in lines(planned)
    assert lines(planned).count("nearly of one colour") == 1


def test_an_evaluation_names_what_it_leaves_out_and_how_many_pages_have_a_transcript(
    demo: Path, tmp_path: Path
) -> None:
    left_out = save_pages(tmp_path / "pages", 5)
    read = evaluate(demo, tmp_path / "pages", "--json")
    assert read.exit_code == 0, read.stderr
    result = EvalResult.model_validate_json(read.stdout)
    assert (len(result.pages), result.transcribed, result.left_out) == (5, 2, left_out)
    assert "2 of 5 pages have a transcript: error rates are of these, all else of all pages" in lines(read)
    console = Console(width=80)
    with console.capture() as table:
        console.print(eval_table(result))
    assert re.search(r"with a transcript +2 pages", table.get())


def test_task_and_system_message_are_part_of_what_is_calibrated_on(quant: Run, tmp_path: Path) -> None:
    digests = []
    for name, flags in {"default": (), "task": ("--task", "table"), "system": ("--system", "Be exact.")}.items():
        assert quant("synthetic:1", *flags, output=name).exit_code == 0
        calibration = read_report(tmp_path / name).calibration
        assert calibration is not None
        digests.append((calibration.sha256, calibration.page_sha256))
    assert len({texts for texts, _ in digests}) == 3
    assert len({tuple(pages) for _, pages in digests}) == 1


def test_held_out_pages_are_not_warned_of(demo: Path) -> None:
    result = evaluate(demo, "synthetic:1")
    assert result.exit_code == 0, result.stderr
    assert "warning" not in result.stderr


def test_a_bad_source_is_bad_input_of_both_commands(demo: Path, quant: Run, tmp_path: Path) -> None:
    (tmp_path / "broken.pdf").write_bytes(b"%PDF-1.7 and no more")
    (tmp_path / "bare").mkdir()
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"img_path": "a.png"}\n{"img_path": "a.png", "system_prompt": ""}\n')
    for arguments, reason in (
        ((tmp_path / "broken.pdf",), "broken.pdf: is no PDF file, or a damaged one"),
        ((tmp_path / "bare",), "bare: no image in this folder"),
        (("hf:nowhere",), "hf:nowhere: no such folder; a dataset of the hub is named OWNER/NAME"),
        (
            (rows, "--system", "Be exact."),
            "rows.jsonl:2: brings a system message of its own; take it out of the data, or",
        ),
        (("synthetic:1", "--system", "\udcff"), "holds half a character (a lone surrogate)"),
        (("synthetic:1", "--task", "guess"), "unknown task 'guess'; give one of doc_parse, structured_parse, "),
    ):
        for result in (quant(*arguments), evaluate(demo, *arguments)):
            assert result.exit_code == 2
            assert reason in result.stderr
            assert result.stderr.count("\n") == 1


def test_an_unknown_task_is_refused_even_where_no_page_is_needed(quant: Run) -> None:
    result = quant("synthetic:1", "--method", "rtn", "--task", "guess")
    assert result.exit_code == 2
    assert "unknown task 'guess'" in result.stderr
