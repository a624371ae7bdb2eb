"""Fewer pixels for a run: in calibration and evaluation alike, in report and card, and in the plan."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.cli.main import main
from hyocr_core.evaluation.recorded.record_folder import load_evaluation
from hyocr_core.run.dry_run import plan_run
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.terminal.plan_table import plan_tables
from hyocr_core.testing.tiny import PIXELS, write_checkpoint

pytestmark = pytest.mark.needs_methods

LOWERED = 4096

MakeRun = Callable[..., RunConfig]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "tiny"
    write_checkpoint(folder)
    return folder


@pytest.fixture
def make_run(model: Path, tmp_path: Path) -> MakeRun:
    def make(**changes: Any) -> RunConfig:
        given = {"model": str(model), "output": tmp_path / "out", "method": "gptq", "calib": "synthetic:3"}
        return RunConfig(**(given | {"options": {"group_size": 32}, "device": "cpu"} | changes))

    return make


def test_calibration_and_evaluation_see_the_lowered_pixels_and_say_so(make_run: MakeRun, tmp_path: Path) -> None:
    free = quantize(make_run(output=tmp_path / "free"))
    lowered = quantize(make_run(max_pixels=LOWERED, eval="synthetic:2"))
    assert free.calibration is not None
    assert lowered.calibration is not None
    assert lowered.calibration.max_pixels == LOWERED
    assert free.calibration.max_pixels is None
    assert lowered.calibration.tokens < free.calibration.tokens
    # The pages themselves are the same.
    assert lowered.calibration.page_sha256 == free.calibration.page_sha256
    assert read_report(tmp_path / "out") == lowered
    assert lowered.evaluation is not None
    evaluated = load_evaluation(tmp_path / "out")
    assert evaluated is not None
    assert lowered.evaluation.max_pixels == evaluated.max_pixels == LOWERED
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "tokens, of synthetic:3, scaled down to 4,096 pixels" in card
    assert "2 pages of synthetic:2, scaled down to 4,096 pixels, read greedily" in card
    assert "scaled down" not in (tmp_path / "free" / "README.md").read_text(encoding="utf-8")


def test_the_plan_says_what_fewer_pixels_save(make_run: MakeRun) -> None:
    free, lowered = plan_run(make_run()), plan_run(make_run(max_pixels=LOWERED))
    assert free.calibration is not None
    assert lowered.calibration is not None
    assert (free.calibration.max_pixels, free.calibration.without_limit) == (None, None)
    without = lowered.calibration.without_limit
    assert without is not None
    assert (without.tokens, without.patches) == (free.calibration.tokens, free.calibration.patches)
    assert without.memory == free.resources.memory
    assert without.tokens > lowered.calibration.tokens
    assert without.work > without.tokens / lowered.calibration.tokens  # attention costs the square
    shown = "\n".join(str(cell) for table in plan_tables(lowered) for column in table.columns for cell in column.cells)
    assert f"4,096 pixels at most; without: {without.tokens} tokens, memory about" in shown


@pytest.mark.parametrize("max_pixels", [PIXELS[0] - 1, PIXELS[1] + 1])
@pytest.mark.parametrize("command", ["quant", "eval"])
def test_pixels_beyond_the_processors_are_refused_in_one_line(
    model: Path, tmp_path: Path, command: str, max_pixels: int
) -> None:
    output = tmp_path / "out"
    arguments = {
        "quant": ["--method", "gptq", "--model", str(model), "--calib", "synthetic:2", "--output", str(output)],
        "eval": [str(model), "--data", "synthetic:2"],
    }
    done = CliRunner().invoke(main, [command, *arguments[command], "--max-pixels", str(max_pixels), "--device", "cpu"])
    assert done.exit_code == 2
    line = done.stderr.splitlines()[-1]
    assert f"max_pixels: {max_pixels:,} is not between 1,024 and 16,384" in line
    assert not output.exists()
