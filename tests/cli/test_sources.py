"""Sources of pages as a user meets them, through both commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.cli.main import main

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
    assert "left out 2 duplicates and 0 near ones (--keep-duplicates keeps them)\n" in result.stderr
    calibration = read_report(tmp_path / "out").calibration
    assert calibration is not None
    assert (calibration.source, calibration.samples) == ("synthetic:2,synthetic:6", 6)
    assert len(set(calibration.page_sha256)) == 6
    seen = evaluate(tmp_path / "out", "synthetic:8")
    assert seen.exit_code == 0, seen.stderr
    assert "warning: calibration saw 6 of these 8 pages; held-out pages would say more\n" in seen.stderr


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
