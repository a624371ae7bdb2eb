"""Options of single layers: which hold where, and what is refused in one line before any weight is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hyocr_core.cli.main import main
from hyocr_core.models.load import open_weights
from hyocr_core.pages.sources import open_source, select
from hyocr_core.progress import Silent
from hyocr_core.run.job import prepare
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.run_file import merge_run_config
from hyocr_core.verification.verify import verify
from tests.evaluating import evaluate

pytestmark = pytest.mark.needs_methods

MIXED = {"model.language_model.layers.0": {"bits": 8}, "*.down_proj": {"group_size": 64}}


def run_of(demo: Path, output: Path, calib: str, overrides: dict[str, Any], **options: Any) -> RunConfig:
    given = {"model": str(demo), "output": output, "calib": calib, "num_samples": 4, "device": "cpu"}
    options = {"format": "compressed-tensors", **options}
    return RunConfig.model_validate({**given, "method": "gptq", "options": options, "overrides": overrides})


def test_the_first_pattern_that_matches_counts_by_either_name(demo: Path, calib: str, tmp_path: Path) -> None:
    job = prepare(run_of(demo, tmp_path / "out", calib, MIXED), Silent())
    found = {name: (config.bits, config.group_size) for name, config in job.options.items()}  # type: ignore[attr-defined]
    assert found["model.layers.0.mlp.down_proj"] == (8, 128)
    assert found["model.layers.0.self_attn.q_proj"] == (8, 128)
    assert found["model.layers.1.mlp.down_proj"] == (4, 64)
    assert found["model.layers.1.self_attn.o_proj"] == (4, 128)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"*.nonsense": {"bits": 8}}, "overrides: '*.nonsense' matches no layer that is quantized; names look like "),
        ({"vit.*": {"bits": 8}}, "overrides: 'vit.*' matches no layer that is quantized"),
        ({"*.o_proj": {"bitz": 8}}, "overrides: '*.o_proj': bitz: unknown key; did you mean bits?"),
        ({"*.o_proj": {"bits": 5}}, "overrides: '*.o_proj': bits = 5"),
        ({"*.q_proj": {"bits": 8}}, "overrides: '*.q_proj' gives model.layers.0.self_attn.q_proj and "),
        ({"*.o_proj": {"format": "gptq"}}, "overrides: '*.o_proj': format is an option of the whole run"),
        ({"*.o_proj": {"ignore": ["x"]}}, "overrides: '*.o_proj': ignore is an option of the whole run"),
    ],
)
def test_refused(overrides: dict[str, Any], said: str, demo: Path, calib: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({"overrides": overrides, "options": {"format": "compressed-tensors"}}))
    command = ["quant", "-c", str(file), "--model", str(demo), "--output", str(tmp_path / "out"), "--method", "gptq"]
    result = CliRunner().invoke(main, [*command, "--calib", calib])
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stderr.strip().count("\n") == 0


def test_a_format_without_room_names_the_one_that_has_it(demo: Path, calib: str, tmp_path: Path) -> None:
    command = ["quant", "--model", str(demo), "--output", str(tmp_path / "out"), "--method", "gptq", "--calib", calib]
    result = CliRunner().invoke(main, [*command, "--override", "*.o_proj:bits=8"])
    assert result.exit_code == 2
    assert "gptq" in result.stderr
    assert "compressed-tensors" in result.stderr


def test_flags_come_before_the_file(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(json.dumps({"overrides": {"*.o_proj": {"bits": 8}, "*.k_proj": {"bits": 4}}}))
    flags = {"model": "m", "output": tmp_path / "o", "method": "gptq"}
    layers = ["*.layers.0.*:bits=8", "*.layers.0.*:group_size=64", "*.k_proj:bits=8"]
    run = merge_run_config(file, flags, [], layers=layers).run
    assert list(run.overrides.items()) == [
        ("*.layers.0.*", {"bits": 8, "group_size": 64}),
        ("*.k_proj", {"bits": 8}),
        ("*.o_proj", {"bits": 8}),
    ]


@pytest.mark.parametrize("argument", ["*.o_proj", ":bits=8", "*.o_proj:bits"])
def test_a_malformed_argument_is_one_line(argument: str, demo: Path, tmp_path: Path) -> None:
    command = ["quant", "--model", str(demo), "--output", str(tmp_path / "out"), "--method", "gptq"]
    result = CliRunner().invoke(main, [*command, "--override", argument])
    assert result.exit_code == 2
    assert "--override" in result.stderr


def test_a_mixed_checkpoint_is_written_verified_and_read(demo: Path, calib: str, heldout: str, tmp_path: Path) -> None:
    report = quantize(run_of(demo, tmp_path / "out", calib, MIXED, group_size=32))
    options = {layer.name: layer.options for layer in report.layers}
    assert options["model.layers.0.mlp.down_proj"] == {"bits": 8}
    assert options["model.layers.2.mlp.down_proj"] == {"group_size": 64}
    assert options["model.layers.2.mlp.up_proj"] == {}
    config = json.loads((tmp_path / "out" / "config.json").read_text())["quantization_config"]
    assert len(config["config_groups"]) == 3
    weights = open_weights(tmp_path / "out")
    bits = {name: round(weights.bits(name), 2) for name in options}  # type: ignore[union-attr]
    assert bits["model.layers.0.self_attn.o_proj"] > 8 > 5 > bits["model.layers.1.self_attn.o_proj"] > 4
    found = verify(tmp_path / "out", original=str(demo))
    assert found.faults == ()
    least = {layer.name: layer.least_db for layer in found.layers}
    assert least["model.layers.0.self_attn.o_proj"] > least["model.layers.1.self_attn.o_proj"]
    comparison = evaluate(tmp_path / "out", select(open_source(heldout), 16, 0), baseline=demo).comparison
    assert comparison is not None
    assert comparison.kl is not None
    assert comparison.kl < 0.02
