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
from safetensors import safe_open

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.cli.main import main
from hyocr_core.plugin.method import Method

pytestmark = pytest.mark.needs_methods

Quant = Callable[..., Result]

CONFIGS = Path(__file__).parents[2] / "configs" / "hunyuan_ocr"


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


def test_with_v_the_final_table_has_a_row_per_layer(quant: Quant) -> None:
    lines = quant("-v").stderr.splitlines()
    rows = [line.split() for line in lines if line.startswith("model.layers.")]
    assert len(rows) == 28
    assert [rows[0][0], rows[0][-2]] == ["model.layers.0.self_attn.q_proj", "256x256"]
    assert all(0 < float(row[1]) < float(row[2]) < 1 for row in rows)


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
        (["--answers", "own"], "answers = 'own': should be 'data', 'generate' or 'none'"),
        (["-o", "weighting=even"], "weighting"),
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

    def degrade(self: Method, layers: Any, stats: Any, config: Any, seed: int) -> Any:
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
    assert result.stderr.splitlines()[-1].startswith("hyocr: interrupted; the same command goes on")


def test_a_file_configures_a_run_and_flags_win(quant: Quant, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("seed: 7\noptions: {group_size: 64, damp_percent: 0.05}\n")
    result = quant("-c", str(file), "-o", "group_size=32", "--format", "compressed-tensors", "--json")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    config = report["method"]["config"]
    assert (config["group_size"], config["damp_percent"], config["format"]) == (32, 0.05, "compressed-tensors")
    assert report["calibration"]["seed"] == 7


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- a\n", "line 1: must be a mapping"),
        ("model: !!python/name:os.system\n", "line 1: could not determine a constructor for the tag"),
        ("compression:\n  name: PTQ\n  name: PTQ\n", "line 3: found duplicate key"),
        (
            "compression: {name: PTQ, quantization: {name: int4_gptq, bitz: 4}}\n",
            "bitz: unknown key; did you mean bits?",
        ),
        ("compression: {name: PTQ, quantization: {name: fp8_static, bits: 4}}\n", "fp8_static stores 8 bits"),
    ],
)
def test_a_bad_file_is_one_line_and_exit_code_2(quant: Quant, text: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    result = quant("-c", str(file))
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith("hyocr: error: ")
    assert message in line
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("method", "quant_method", "suffixes"),
    [
        ("fp8_static", "fp8", {"weight", "weight_scale", "input_scale"}),
        ("int4_gptq", "gptq", {"qweight", "qzeros", "scales", "g_idx"}),
        ("int4_awq", "awq", {"qweight", "qzeros", "scales"}),
    ],
)
def test_the_references_files_run_unchanged_but_for_the_paths(
    demo: Path, calib: str, tmp_path: Path, method: str, quant_method: str, suffixes: set[str]
) -> None:
    file = CONFIGS / method / f"hunyuan_ocr_{method}.yaml"
    paths = ["--model", str(demo), "--calib", calib, "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, ["quant", "-c", str(file), *paths, "--num-samples", "2"])
    assert result.exit_code == 0, result.stderr
    notes = [line for line in result.stderr.splitlines() if line.startswith(f"{file}: ")]
    keys = [line.removeprefix(f"{file}: ").partition(":")[0] for line in notes]
    assert keys == ["model.trust_remote_code", "model.device_map", "dataset.max_seq_length"]
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == quant_method
    with safe_open(tmp_path / "out" / "model.safetensors", framework="pt") as tensors:
        prefix = "model.layers.0.mlp.down_proj."
        assert {name.removeprefix(prefix) for name in tensors.keys() if name.startswith(prefix)} == suffixes  # noqa: SIM118


def test_the_references_name_of_a_method_is_understood(quant: Quant) -> None:
    result = quant("--json", method="int4_gptq")
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert (report["method"]["name"], report["method"]["config"]["bits"]) == ("gptq", 4)


def test_a_dry_run_prints_tables_and_leaves_no_file(quant: Quant, tmp_path: Path) -> None:
    result = quant("--dry-run", "-o", "ignore=[model.layers.0.mlp, lm_head]")
    assert result.exit_code == 0, result.stderr
    lines = [" ".join(line.split()) for line in result.stdout.splitlines()]
    assert "decoder down 1 left as is: ignored by model.layers.0.mlp" in lines
    assert "decoder down 3 int4, groups of 128, symmetric" in lines
    assert "vLLM CPU yes" in lines
    rows = [line.split() for line in lines if line]
    (whole,) = [row for row in rows if row[:1] == ["all"]]
    assert float(whole[1]) > float(whole[3]) > 0
    assert {"memory", "disk", "time"} < {row[0] for row in rows}
    assert list(tmp_path.iterdir()) == []


def test_a_dry_run_in_json_is_the_plan(quant: Quant, tmp_path: Path) -> None:
    result = quant("--dry-run", "--json", method="rtn")
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    assert (plan["method"], plan["options"]["group_size"], plan["calibration"]) == ("rtn", 128, None)
    assert {row["part"] for row in plan["sizes"]} == {"decoder", "vision", "embeddings", "rest"}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", "group_sise=64"],
        ["--model", "./nowhere"],
        ["--calib", "pages.csv.d"],
        ["--resume"],
        ["--output", str(Path(__file__))],
    ],
)
def test_a_dry_run_of_a_bad_input_is_exit_code_2(quant: Quant, arguments: list[str], tmp_path: Path) -> None:
    result = quant("--dry-run", *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.splitlines()[-1].startswith("hyocr: error: ")
    assert list(tmp_path.iterdir()) == []


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
