"""Both methods through the core's own loader: every option, every refusal, and the promises of the contract."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hyocr_plugin_gptq.config import GptqConfig, RtnConfig
from hyocr_plugin_gptq.layers import quantize_gptq, quantize_rtn
from hyocr_plugin_gptq.storage import pack, unpack
from pydantic import ValidationError
from torch import Tensor

from hyocr_core import ConfigError, Layer, QuantizedLayer, QuantizedNames, RunError, Stats
from hyocr_core.plugin.registry import Method, load_method

READABLE = {
    *(("gptq", bits, True) for bits in (4, 8)),
    *(("compressed-tensors", bits, True) for bits in (4, 8)),
    ("compressed-tensors", 4, False),
}
NAMES = QuantizedNames(("model.language_model.layers.0.mlp.up_proj",), ("lm_head", "model.vision_tower.layers.0.fc1"))
COMBINATIONS = list(
    itertools.product(("gptq", "compressed-tensors"), (4, 8), (True, False), (32, 64, 128, -1), (True, False))
)


def layer_of(name: str, outputs: int, inputs: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Layer:
    gen = torch.Generator().manual_seed(seed)
    return Layer(name, (0.05 * torch.randn(outputs, inputs, generator=gen)).to(dtype))


def stats_of(inputs: int, seed: int = 9) -> Stats:
    gen = torch.Generator().manual_seed(seed)
    mix = torch.randn(inputs // 4, inputs, generator=gen)
    x = torch.randn(600, inputs // 4, generator=gen) @ mix + 0.3 * torch.randn(600, inputs, generator=gen)
    return {"hessian": 2 / 600 * x.T @ x, "tokens": torch.tensor(600)}


def checkpoint_config(method: Method, options: dict[str, Any]) -> dict[str, Any]:
    """The quantization_config of a checkpoint all of whose layers have these options."""
    config = method.config(options)
    return method.checkpoint_config(NAMES, dict.fromkeys(NAMES.quantized, config), config)


def relative_error(weight: Tensor, other: Tensor, stats: Stats) -> float:
    h, w, d = stats["hessian"].double(), weight.double(), (weight.double() - other.double())
    return (((d @ h) * d).sum() / ((w @ h) * w).sum()).sqrt().item()


@pytest.mark.parametrize(("format_", "bits", "sym", "group_size", "mse"), COMBINATIONS)
def test_every_combination_works_or_is_refused(format_: str, bits: int, sym: bool, group_size: int, mse: bool) -> None:
    options: dict[str, Any] = {"format": format_, "bits": bits, "sym": sym, "group_size": group_size, "mse": mse}
    if (format_, bits, sym) not in READABLE:
        with pytest.raises(ValidationError, match="use"):
            GptqConfig(**options)
        return
    layer, stats = layer_of("l", 24, 128), stats_of(128)
    config = GptqConfig(**options)
    [quantized] = quantize_gptq([layer], stats, config)
    nearest = quantize_rtn(layer, RtnConfig(**options))
    for result in (quantized, nearest):
        assert torch.equal(unpack(pack(result, config), config), result.dequantized)
        assert result.dequantized.shape == layer.weight.shape
        assert result.dequantized.dtype == layer.weight.dtype
    error = relative_error(layer.weight, quantized.dequantized, stats)
    assert error < relative_error(layer.weight, nearest.dequantized, stats)
    assert error < (0.2 if bits == 4 else 0.02)
    assert quantized.metrics["output_error"] == pytest.approx(error, rel=0.05)
    assert quantized.metrics["output_error_rtn"] > quantized.metrics["output_error"]
    assert quantized.metrics["damping"] == 0.01
    assert quantized.metrics["hessian_condition"] > 10
    assert quantized.degraded is None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_scales_and_weights_keep_the_dtype_of_the_weight(dtype: torch.dtype) -> None:
    layer = layer_of("l", 16, 64, dtype)
    [quantized] = quantize_gptq([layer], stats_of(64), config := GptqConfig(group_size=32))
    tensors = pack(quantized, config)
    assert tensors["scales"].dtype == quantized.dequantized.dtype == dtype
    assert torch.equal(unpack(tensors, config), quantized.dequantized)


def test_layers_solved_together_are_those_solved_alone() -> None:
    layers = [layer_of(name, outputs, 128, seed=outputs) for name, outputs in (("q", 64), ("k", 24), ("v", 8))]
    stats, config = stats_of(128), GptqConfig(group_size=32)
    together = quantize_gptq(layers, stats, config)
    for layer, joint in zip(layers, together, strict=True):
        [alone] = quantize_gptq([layer], stats, config)
        assert joint.name == layer.name
        assert torch.equal(joint.tensors["scales"], alone.tensors["scales"])
        # Another number of outputs may sum in another order and so break a tie otherwise.
        same = (joint.dequantized == alone.dequantized).all(1).float().mean().item()
        assert same >= 0.9
        assert joint.metrics["output_error"] == pytest.approx(alone.metrics["output_error"], rel=0.02)


def test_the_grid_fits_the_channels_that_inputs_are_large_in() -> None:
    """With a diagonal Hessian no error is passed on, so that only the grid tells GPTQ from rounding to nearest."""
    layer, few = layer_of("l", 48, 128), torch.where(torch.arange(128) % 8 == 0, 100.0, 1.0)
    stats = {"hessian": torch.diag(few), "tokens": torch.tensor(9)}

    def error(quantized: QuantizedLayer) -> float:
        return float(((layer.weight - quantized.dequantized).float().square() @ few).sum())

    whole, searched = (quantize_gptq([layer], stats, GptqConfig(group_size=32, mse=mse))[0] for mse in (False, True))
    nearest, fitted = (quantize_rtn(layer, RtnConfig(group_size=32, mse=mse)) for mse in (False, True))
    assert torch.equal(whole.dequantized, nearest.dequantized)
    assert error(searched) < 0.8 * min(error(nearest), error(fitted))


def test_weights_move_towards_the_outputs_of_the_full_precision_model() -> None:
    layer, gen = layer_of("l", 24, 64), torch.Generator().manual_seed(3)
    full = torch.randn(400, 64, generator=gen)
    quantized = full + 0.3 * full.roll(1, 1) + 0.1 * torch.randn(400, 64, generator=gen)
    stats = {"hessian": 2 / 400 * quantized.T @ quantized, "drift": 2 / 400 * quantized.T @ (full - quantized)}

    def lost(**options: Any) -> float:
        [found] = quantize_gptq([layer], stats, GptqConfig(group_size=32, **options))
        return float((full @ layer.weight.float().T - quantized @ found.dequantized.float().T).norm())

    plain, default, refined = lost(target_strength=0), lost(), lost(refine=2)
    assert default < 0.5 * plain
    assert refined < 0.5 * plain
    del stats["drift"]
    assert lost() == plain


@pytest.mark.parametrize("strength", [0, 0.5])
def test_without_targets_no_second_path_is_asked_for(strength: float) -> None:
    assert GptqConfig(target_strength=strength).needs_reference == bool(strength)


def test_a_hopeless_hessian_degrades_to_rounding_to_nearest() -> None:
    layer, config = layer_of("l", 16, 64), GptqConfig(group_size=32, mse=False)
    hessian = torch.eye(64)
    hessian[0, 1] = hessian[1, 0] = 100
    [quantized] = quantize_gptq([layer], {"hessian": hessian, "tokens": torch.tensor(9)}, config)
    nearest = quantize_rtn(layer, RtnConfig(group_size=32, mse=False))
    assert torch.equal(quantized.dequantized, nearest.dequantized)
    assert quantized.degraded is not None
    assert "no Cholesky factor even with damping 10" in quantized.degraded
    assert quantized.metrics["output_error"] == quantized.metrics["output_error_rtn"]
    assert quantized.metrics["damping"] == pytest.approx(10)
    assert "hessian_condition" not in quantized.metrics


def test_inputs_that_were_all_zero_give_no_error_and_no_nan() -> None:
    stats = {"hessian": torch.zeros(64, 64), "tokens": torch.tensor(3)}
    [quantized] = quantize_gptq([layer_of("l", 16, 64)], stats, GptqConfig(group_size=32))
    assert quantized.metrics["output_error"] == 0
    assert torch.isfinite(quantized.dequantized).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_name_the_layer(value: float) -> None:
    good, bad, stats = layer_of("good", 16, 64), layer_of("bad", 16, 64), stats_of(64)
    bad.weight[3, 5] = value
    with pytest.raises(RunError, match="bad: its weight holds NaN"):
        quantize_gptq([good, bad], stats, GptqConfig(group_size=32))
    with pytest.raises(RunError, match="bad: its weight holds NaN"):
        quantize_rtn(bad, RtnConfig(group_size=32))
    stats["hessian"][2, 2] = value
    with pytest.raises(RunError, match="good: the Hessian of its inputs"):
        quantize_gptq([good], stats, GptqConfig(group_size=32))


def test_weights_that_overflow_once_quantized_name_the_layer() -> None:
    layer = layer_of("big", 16, 64, torch.float16)
    layer.weight[0, 0] = -65472
    with pytest.raises(RunError, match=r"big: its largest weights overflow torch\.float16"):
        quantize_rtn(layer, RtnConfig(group_size=32, mse=False))
    wide = layer_of("wide", 16, 64)
    wide.weight[0, 0] = 3e38
    with pytest.raises(RunError, match="wide: its largest weights overflow"):
        quantize_gptq([layer_of("l", 16, 64), wide], stats_of(64), GptqConfig(group_size=32))


def test_other_dtypes_and_missing_statistics_name_the_layer() -> None:
    odd = layer_of("odd", 16, 64, torch.float64)
    with pytest.raises(RunError, match=r"odd: its weight is torch\.float64"):
        quantize_rtn(odd, RtnConfig())
    with pytest.raises(RunError, match=r"l: needs calibration statistics and was given none"):
        quantize_gptq([layer_of("l", 16, 64)], None, GptqConfig())


@pytest.mark.parametrize("method", ["gptq", "rtn"])
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 3}, "bits"),
        ({"group_size": 16}, "group_size"),
        ({"sym": False}, r"sym: false in format: gptq is refused by vLLM; use format: compressed-tensors"),
        ({"sym": False, "bits": 8, "format": "compressed-tensors"}, r"read by no runtime; use sym: true, or bits: 4"),
        ({"format": "awq"}, "format"),
        ({"group_sise": 64}, "group_sise"),
    ],
)
def test_bad_options_are_one_line_of_the_user(method: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_method(method).config(options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("options", [{"damp_percent": 0}, {"damp_percent": 1}, {"block_size": 0}])
def test_bad_solver_options_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        load_method("gptq").config(options)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((64, 100), {}, "a.b: its width of 100 input channels is not a multiple of 8"),
        ((64, 4304), {}, "a.b: group_size 128 does not divide its width of 4304 input channels; use one of: -1"),
        ((64, 192), {}, "group_size 128 does not divide its width of 192 .* use one of: 32, 64, -1"),
        ((60, 128), {}, "a.b: its 60 output channels are not a multiple of 8.*format: compressed-tensors"),
        ((60, 128), {"format": "compressed-tensors", "sym": False}, "60 output channels.*sym: true"),
    ],
)
def test_layers_that_do_not_fit_are_refused_by_name(
    shape: tuple[int, int], options: dict[str, Any], message: str
) -> None:
    method = load_method("gptq")
    with pytest.raises(ConfigError, match=message):
        method.check_layers({"fine": (64, 128), "a.b": shape}, method.config(options))


def test_layers_that_fit_are_accepted() -> None:
    method = load_method("rtn")
    method.check_layers({"a": (60, 128)}, method.config({"format": "compressed-tensors"}))
    method.check_layers({"a": (64, 4304)}, method.config({"group_size": -1}))
    method.check_layers({"a": (4, 4)}, method.config({"group_size": -1, "bits": 8}))


@pytest.mark.parametrize("name", ["gptq", "rtn"])
def test_gptq_checkpoint_config(name: str) -> None:
    assert checkpoint_config(load_method(name), {"group_size": 64}) == {
        "quant_method": "gptq", "bits": 4, "group_size": 64, "desc_act": False, "sym": True, "lm_head": False,
        "checkpoint_format": "gptq", "pack_dtype": "int32",
    }  # fmt: skip


@pytest.mark.parametrize(("group_size", "strategy", "written"), [(64, "group", 64), (-1, "channel", None)])
def test_compressed_tensors_checkpoint_config(group_size: int, strategy: str, written: int | None) -> None:
    options = {"format": "compressed-tensors", "group_size": group_size, "sym": False}
    weights = {
        "num_bits": 4, "type": "int", "symmetric": False, "dynamic": False, "strategy": strategy,
        "group_size": written, "actorder": None,
    }  # fmt: skip
    group = {"targets": ["Linear"], "input_activations": None, "output_activations": None, "weights": weights}
    assert checkpoint_config(load_method("gptq"), options) == {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head", "model.vision_tower.layers.0.fc1"], "config_groups": {"group_0": group},
    }  # fmt: skip


def test_layers_with_different_options_need_a_format_with_room_for_them() -> None:
    method = load_method("gptq")
    names = QuantizedNames(("model.language_model.layers.0.mlp.up_proj", "b"), ("lm_head",))

    def written(format_: str) -> dict[str, Any]:
        options = [{"format": format_, "bits": bits} for bits in (4, 8)]
        configs = [method.config(own) for own in options]
        return method.checkpoint_config(names, dict(zip(names.quantized, configs, strict=True)), configs[0])

    with pytest.raises(ConfigError, match=r"format gptq has no room for layers with .*use format: compressed-tensors"):
        written("gptq")
    groups = written("compressed-tensors")["config_groups"]
    assert {group["weights"]["num_bits"]: group["targets"] for group in groups.values()} == {
        4: [names.quantized[0]],
        8: ["b"],
    }


def test_the_compressed_tensors_library_accepts_the_config() -> None:
    quantization = pytest.importorskip("compressed_tensors.quantization")
    for group_size in (32, -1):
        options = {"format": "compressed-tensors", "group_size": group_size, "sym": False}
        read = quantization.QuantizationConfig.model_validate(checkpoint_config(load_method("gptq"), options))
        assert read.config_groups["group_0"].weights.num_bits == 4


def test_the_hooks_lead_to_the_same_bytes_as_the_functions() -> None:
    layers, stats = [layer_of("q", 16, 64), layer_of("k", 8, 64, seed=1)], stats_of(64)
    gptq, rtn = load_method("gptq"), load_method("rtn")
    config = gptq.config({"group_size": 32})
    results: list[QuantizedLayer] = gptq.quantize_group(layers, {layer.name: stats for layer in layers}, config)
    assert torch.equal(results[0].dequantized, quantize_gptq(layers, stats, GptqConfig(group_size=32))[0].dequantized)
    assert torch.equal(gptq.unpack(gptq.pack(results[1], config), layers[1].spec, config), results[1].dequantized)
    plain = rtn.config({"group_size": 32})
    nearest = rtn.quantize_layer(layers[0], None, plain)
    assert torch.equal(rtn.unpack(rtn.pack(nearest, plain), layers[0].spec, plain), nearest.dequantized)
    assert (gptq.spec.needs_calibration, rtn.spec.needs_calibration) == (True, False)


def test_every_option_is_in_the_readme() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert [name for name in GptqConfig.model_fields if f"`{name}`" not in text] == []


def test_metrics_of_a_wide_layer_come_from_a_fair_sample_of_its_outputs() -> None:
    layer, stats = layer_of("wide", 1300, 64), stats_of(64)
    [quantized] = quantize_gptq([layer], stats, GptqConfig(group_size=32))
    assert quantized.metrics["output_error"] == pytest.approx(
        relative_error(layer.weight, quantized.dequantized, stats), rel=0.05
    )
