"""A clock that is set back while a run goes on, and files from the future: nothing depends on the time of day."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.checkpoint.writer import stage_folder
from hyocr_core.cli.main import main
from hyocr_core.plugin.method import Method
from hyocr_core.testing.jobs import file_digests
from hyocr_core.testing.tiny import write_checkpoint

pytestmark = pytest.mark.needs_methods

DAY = 86_400.0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every look at it finds it an hour earlier."""

    def hours() -> Iterator[float]:
        now = time.time()
        while True:
            now -= DAY / 24
            yield now

    found = hours()
    next(found)
    monkeypatch.setattr(time, "time", lambda: next(found))
    monkeypatch.setattr(time, "time_ns", lambda: int(1e9 * next(found)))


def run(folder: Path, output: str, *more: str) -> Any:
    pages = ["--calib", "synthetic:2", "--num-samples", "2", "--eval", "synthetic:2", "--max-new-tokens", "3"]
    given = ["--model", str(folder / "model"), "--output", str(folder / output), "--method", "gptq", "--device", "cpu"]
    return CliRunner().invoke(main, ["quant", *given, *pages, "-o", "group_size=32", *more])


@pytest.mark.usefixtures("clock")
def test_a_run_is_stopped_and_resumed_in_a_world_whose_clock_runs_backwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_checkpoint(tmp_path / "model")
    (tmp_path / "straight").mkdir()
    straight = run(tmp_path, "straight/out")
    assert straight.exit_code == 0, straight.stderr
    quantize_group, left = Method.quantize_group, iter(range(5))

    def stop(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return quantize_group(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Method, "quantize_group", stop)
        assert run(tmp_path, "out").exit_code == 130
    for number, path in enumerate([*stage_folder(tmp_path / "out").rglob("*"), *(tmp_path / "model").iterdir()]):
        stamp = time.time() + (1000 if number % 2 else -1000) * DAY
        os.utime(path, (stamp, stamp))
    resumed = run(tmp_path, "out", "--resume")
    assert resumed.exit_code == 0, resumed.stderr
    assert "anew" not in resumed.stderr
    assert file_digests(tmp_path / "out") == file_digests(tmp_path / "straight" / "out")
    report = read_report(tmp_path / "out")
    assert min(report.phases.values()) >= 0
    assert min(layer.seconds for layer in report.layers) >= 0
    assert report.evaluation is not None
    assert report.evaluation.model.pages_per_second > 0
