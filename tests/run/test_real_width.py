"""A vision tower whose MLP is 16 times a prime wide, as the published one's 4304 = 16 * 269: no group divides it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.cli.main import main
from hyocr_core.errors import ConfigError
from hyocr_core.models.load import open_weights
from hyocr_core.pages.sources import open_source, select
from hyocr_core.progress import Silent
from hyocr_core.run.dry_run import DryRun, plan_run
from hyocr_core.run.job import prepare
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.shown import markdown
from hyocr_core.testing import tiny
from hyocr_core.verification.verify import verify
from tests.evaluating import evaluate

pytestmark = pytest.mark.needs_methods

WIDTH = 16 * 17
DOWN, UP = "vit.layers.0.mlp.dense_4h_to_h", "vit.layers.0.mlp.dense_h_to_4h"
WHY = f"its {WIDTH} input channels are divided by no group (32, 64, 128)"
PER_CHANNEL = f"{WHY}, so that each output channel has one scale"
LEFT = f"{WHY}, and the format has one group size for all; format: compressed-tensors can store it"

PACKED = {"format": "compressed-tensors"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("width") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tiny.VISION, "intermediate_size", WIDTH)
        tiny.write_checkpoint(folder)
    return folder


def run_of(model: Path, output: Path, method: str, options: dict[str, Any], **more: Any) -> RunConfig:
    options = {"quant_vit": True, **options}
    given = {"model": str(model), "output": output, "method": method, "calib": tiny.PAGES, "options": options}
    return RunConfig.model_validate({**given, "num_samples": 4, "device": "cpu", **more})


def row(plan: DryRun, part: str) -> tuple[str | None, str | None]:
    found = next(row for row in plan.linears if row.part == part)
    return found.stored, found.left


@pytest.mark.parametrize(
    ("method", "options", "stored"),
    [
        ("gptq", PACKED, "int4, per output channel, symmetric"),
        ("gptq", {**PACKED, "sym": False}, "int4, per output channel, zero points"),
        ("gptq", {**PACKED, "bits": 8}, "int8, per output channel, symmetric"),
        ("awq", {**PACKED, "zero_point": False}, "int4, per output channel, symmetric"),
        ("awq", {**PACKED, "zero_point": True}, "int4, per output channel, zero points"),
        ("rtn", PACKED, "int4, per output channel, symmetric"),
        ("gptq", {}, None),
        ("awq", {}, None),
        ("rtn", {}, None),
    ],
)
def test_what_no_group_divides_is_stored_per_channel_or_left(
    method: str, options: dict[str, Any], stored: str | None, model: Path, tmp_path: Path
) -> None:
    run = run_of(model, tmp_path / "out", method, options)
    plan = plan_run(run)
    assert row(plan, "vision fc2") == ((None, LEFT) if stored is None else (f"{stored}: {PER_CHANNEL}", None))
    report = quantize(run)
    sizes = {part.part: part.after for part in plan.sizes}
    assert sum(size or 0 for size in sizes.values()) == report.weight_bytes_after
    assert report.weight_bytes_after == sum(info.nbytes for info in CheckpointReader(run.output).tensors.values())
    layers = {layer.name: layer for layer in report.layers}
    assert UP in layers
    if stored is None:
        assert DOWN not in layers
        assert DOWN in report.ignored
        assert report.fallbacks == {DOWN: LEFT}
    else:
        assert layers[DOWN].options == {"group_size": -1}
        assert layers[UP].options == {}
        assert report.fallbacks == {DOWN: PER_CHANNEL}
    [line] = read_report(run.output).exceptions
    assert markdown(line) in (run.output / "README.md").read_text()
    assert verify(run.output, original=str(model)).faults == ()
    loads = {runtime.name: runtime.loads for runtime in plan.runtimes}
    assert loads["vLLM CUDA"] == "yes"
    # compressed-tensors can unpack zero points only by one config group for all layers.
    assert loads["Transformers"] == ("no" if stored and "zero points" in stored else "yes")


@pytest.mark.parametrize(
    ("method", "options"), [("gptq", PACKED), ("awq", {}), ("awq", {**PACKED, "zero_point": True}), ("rtn", PACKED)]
)
def test_both_ways_are_read(method: str, options: dict[str, Any], model: Path, tmp_path: Path) -> None:
    run = run_of(model, tmp_path / "out", method, options)
    quantize(run)
    pages = select(open_source("synthetic:2"), 2, 0)
    result = evaluate(run.output, pages, baseline=model, rounded=True)
    assert result.comparison is not None
    bits = open_weights(run.output).bits  # type: ignore[union-attr]
    assert bits(UP) < 5
    if options:
        assert 4 < bits(DOWN) < 4.5


def test_transformers_loads_it_without_the_layers_of_the_other_group(model: Path, tmp_path: Path) -> None:
    run = run_of(model, tmp_path / "out", "rtn", {**PACKED, "ignore": ["*.fc2"]})
    quantize(run)
    assert verify(run.output, load="transformers").faults == ()


def test_fp8_needs_no_groups(model: Path, tmp_path: Path) -> None:
    run = run_of(model, tmp_path / "out", "fp8", {})
    report = quantize(run)
    assert report.fallbacks == {}
    assert DOWN in {layer.name for layer in report.layers}


def test_one_group_for_all_channels_is_no_exception(model: Path, tmp_path: Path) -> None:
    for options in ({"group_size": -1}, {"group_size": -1, **PACKED}):
        job = prepare(run_of(model, tmp_path / "out", "gptq", options), Silent())
        assert job.fallbacks == {}
        assert DOWN in job.plan.quantized


def test_a_group_size_that_was_asked_for_these_layers_is_refused(model: Path, tmp_path: Path) -> None:
    run = run_of(model, tmp_path / "out", "gptq", PACKED, overrides={"*.fc2": {"group_size": 32}})
    with pytest.raises(ConfigError, match=f"group_size 32 does not divide its width of {WIDTH}"):
        prepare(run, Silent())


def test_other_options_for_these_layers_hold(model: Path, tmp_path: Path) -> None:
    run = run_of(model, tmp_path / "out", "gptq", PACKED, overrides={"vit.layers.*": {"bits": 8}})
    job = prepare(run, Silent())
    assert job.main.options_of_its_own(DOWN) == {"bits": 8, "group_size": -1}
    assert job.main.options_of_its_own(UP) == {"bits": 8}


def test_what_is_ignored_is_no_exception(model: Path, tmp_path: Path) -> None:
    assert prepare(run_of(model, tmp_path / "out", "gptq", {"ignore": ["vit"]}), Silent()).fallbacks == {}


def test_where_another_group_would_do_the_run_stops(demo: Path, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"group_size 128 does not divide its width of 192 .*; use one of: 32, 64, -1"
    ):
        prepare(run_of(demo, tmp_path / "out", "gptq", {}), Silent())


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments))


@pytest.mark.parametrize(("name", "save_name"), [("int4_gptq", None), ("int4_awq", "compressed-tensors")])
def test_the_reference_s_file_may_ask_for_it(name: str, save_name: str | None, model: Path, tmp_path: Path) -> None:
    quantization = {
        "name": name,
        "bits": 4,
        "quant_method": {"weight": "per-group", "group_size": 128},
        "ignore_layers": ["lm_head", "embed_tokens"],
        "quant_vit": True,
    } | ({} if save_name is None else {"save_name": save_name})
    file = tmp_path / "reference.yaml"
    content = {
        "global": {"save_path": str(tmp_path / "out")},
        "model": {"name": "HunyuanVL", "model_path": str(model)},
        "compression": {"name": "PTQ", "quantization": quantization},
        "dataset": {"name": "MultiModalDataset", "data_path": tiny.PAGES, "num_samples": 2},
    }
    file.write_text(json.dumps(content))
    result = invoke("quant", "-c", str(file), "--dry-run", "--json", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    plan = json.loads(result.stdout)
    [found] = [row for row in plan["linears"] if row["part"] == "vision fc2"]
    assert found["left"] == (LEFT if save_name is None else None)
    assert (LEFT if save_name is None else PER_CHANNEL) in " ".join(result.stderr.split())


def test_the_run_says_so(model: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(model), "--output", str(tmp_path / "out"), "-o", "quant_vit=true", "--device", "cpu"]
    result = invoke("quant", "--method", "rtn", *arguments)
    assert result.exit_code == 0, result.stderr
    assert f"{DOWN}: left in full precision: {LEFT}" in " ".join(result.stderr.split())
