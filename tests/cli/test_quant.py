"""`hyocr quant` as a user or a script meets it: exit codes, streams, files that configure a run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hyocr_core.checkpoint.report import read_report
from hyocr_core.cli.main import main
from hyocr_core.method import Method

Quant = Callable[..., Result]


@pytest.fixture
def quant(demo: Path, calib: str, tmp_path: Path) -> Quant:
    """Runs `hyocr quant` on the demo checkpoint, quickly."""

    def run(*arguments: str, method: str = "gptq") -> Result:
        given = ["--model", str(demo), "--output", str(tmp_path / "out"), "--method", method]
        return CliRunner().invoke(main, ["quant", *given, "--calib", calib, "--num-samples", "3", *arguments])

    return run


def test_report_goes_to_stdout_as_json_and_talk_to_stderr(quant: Quant, tmp_path: Path) -> None:
    result = quant("--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout) == read_report(tmp_path / "out").model_dump(mode="json")
    assert "weights " in result.stderr
    assert str(tmp_path / "out") in result.stderr.replace("\n", "")


def test_without_json_stdout_stays_empty(quant: Quant) -> None:
    result = quant(method="rtn")
    assert (result.exit_code, result.stdout) == (0, "")


def test_final_table_has_a_row_per_layer(quant: Quant) -> None:
    lines = quant().stderr.splitlines()
    rows = [line.split() for line in lines if line.startswith("model.layers.")]
    assert len(rows) == 28
    assert rows[0][:2] == ["model.layers.0.self_attn.q_proj", "256x256"]
    assert all(0 < float(row[2]) < float(row[3]) < 1 for row in rows)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--method", "gptk"], "did you mean gptq?"),
        (["-o", "group_sise=64"], "group_size"),
        (["-o", "group_size=48"], "group_size"),
        (["--format", "gguf"], "format"),
        (["-o", "sym=false"], "use format: compressed-tensors"),
        (["-o", "ignore=[nothing.*]"], "'nothing.*' matches no linear layer"),
        (["--num-samples", "0"], "num_samples"),
        (["--calib", "pages.csv.d"], "pages.csv.d"),
        (["--model", "./nowhere"], "nowhere"),
        (["--resume"], "no unfinished run"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    quant: Quant, arguments: list[str], message: str, tmp_path: Path
) -> None:
    result = quant(*arguments)
    assert result.exit_code == 2
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error: ")]
    assert message in line
    assert list(tmp_path.iterdir()) == []


def test_output_that_is_not_empty_is_left_alone(quant: Quant, tmp_path: Path) -> None:
    mine = tmp_path / "out" / "mine.txt"
    mine.parent.mkdir()
    mine.write_text("precious")
    result = quant()
    assert result.exit_code == 2
    assert "not empty" in result.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "mine.txt"]


def test_degraded_layers_are_exit_code_1_unless_allowed(
    quant: Quant, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    quantize_group = Method.quantize_group

    def degrade(self: Method, layers: Any, stats: Any, config: Any) -> Any:
        return [replace(result, degraded="a test") for result in quantize_group(self, layers, stats, config)]

    monkeypatch.setattr(Method, "quantize_group", degrade)
    result = quant("--allow-degraded", "--output", str(tmp_path / "allowed"))
    assert result.exit_code == 0
    result = quant()
    assert result.exit_code == 1
    assert "28 layers are degraded, the first is model.layers.0.self_attn.q_proj" in result.stderr


def test_ctrl_c_says_how_to_go_on(quant: Quant, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_arguments: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(Method, "calibrate", stop)
    result = quant()
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1].startswith("hyocr: interrupted; the same command with --resume")


def test_a_file_configures_a_run_and_flags_win(quant: Quant, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 7\noptions: {group_size: 64, damp_percent: 0.05}\n")
    result = quant("-c", str(file), "-o", "group_size=32", "--format", "compressed-tensors", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    config = report["method"]["config"]
    assert (config["group_size"], config["damp_percent"], config["format"]) == (32, 0.05, "compressed-tensors")
    assert report["calibration"]["seed"] == 7


def test_default_calibration_is_said(demo: Path, tmp_path: Path) -> None:
    arguments = ["quant", "--method", "gptq", "--model", str(demo), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*arguments, "--num-samples", "2"])
    assert result.exit_code == 0, result.stderr
    assert "no --calib given: calibrating on rendered text pages" in result.stderr
    assert "calibrated on 2 samples of synthetic" in result.stderr


def test_a_hub_model_comes_from_a_filled_cache_without_network(hub_cache: Path, tmp_path: Path) -> None:
    revision = (hub_cache / "models--tencent--HunyuanOCR" / "refs" / "main").read_text()
    command = [
        str(Path(sys.executable).with_name("hyocr")),
        "quant",
        "--method",
        "rtn",
        "--model",
        "tencent/HunyuanOCR",
    ]
    environment = os.environ | {"HF_HUB_CACHE": str(hub_cache), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [*command, "--output", str(tmp_path / "out")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    report = read_report(tmp_path / "out")
    assert (report.model.source, report.model.revision) == ("tencent/HunyuanOCR", revision)
    assert not any(path.is_symlink() for path in (tmp_path / "out").iterdir())
