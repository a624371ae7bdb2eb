"""The method through the core's own loader: every option, every refusal, and the promises of the contract."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hyocr_plugin_awq.config import AwqConfig
from hyocr_plugin_awq.layers import quantize
from hyocr_plugin_awq.plugin import pack, unpack
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from hyocr_core import ConfigError, Layer, QuantizedNames, RunError, Stats
from hyocr_core.plugin.registry import load_method

READABLE = {
    ("awq", 4, True),
    ("compressed-tensors", 4, True),
    ("compressed-tensors", 4, False),
    ("compressed-tensors", 8, False),
}
COMBINATIONS = list(
    itertools.product(("awq", "compressed-tensors"), (4, 8), (True, False), (32, 64, 128, -1), (True, False))
)
NAMES = QuantizedNames(("model.language_model.layers.0.mlp.up_proj",), ("lm_head", "model.vision_tower.layers.0.fc1"))


def layer_of(name: str, outputs: int, inputs: int, dtype: torch.dtype = torch.bfloat16, seed: int = 0) -> Layer:
    gen = torch.Generator().manual_seed(seed)
    return Layer(name, (0.05 * torch.randn(outputs, inputs, generator=gen)).to(dtype))


def stats_of(inputs: int, seed: int = 9) -> Stats:
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(600, inputs // 4, generator=gen) @ torch.randn(inputs // 4, inputs, generator=gen)
    x += 0.3 * torch.randn(600, inputs, generator=gen)
    return {"hessian": 2 / 600 * x.T @ x}


def checkpoint_config(options: dict[str, Any]) -> dict[str, Any]:
    """The quantization_config of a checkpoint all of whose layers have these options."""
    method = load_method("awq")
    config = method.config(options)
    return method.checkpoint_config(NAMES, dict.fromkeys(NAMES.quantized, config), config)


def relative_error(weight: Tensor, other: Tensor, stats: Stats) -> float:
    h, w, d = stats["hessian"].double(), weight.double(), (weight.double() - other.double())
    return (((d @ h) * d).sum() / ((w @ h) * w).sum()).sqrt().item()


@pytest.mark.parametrize(("format_", "bits", "zero_point", "group_size", "mse_range"), COMBINATIONS)
def test_every_combination_works_or_is_refused(
    format_: str, bits: int, zero_point: bool, group_size: int, mse_range: bool
) -> None:
    options: dict[str, Any] = {
        "format": format_, "bits": bits, "zero_point": zero_point, "group_size": group_size, "mse_range": mse_range,
    }  # fmt: skip
    if (format_, bits, zero_point) not in READABLE:
        with pytest.raises(ValidationError, match="use"):
            AwqConfig(**options)
        return
    layer, stats, config = layer_of("l", 24, 128), stats_of(128), AwqConfig(**options)
    result = quantize(layer, stats, config)
    assert torch.equal(unpack(pack(result, config), config), result.dequantized)
    assert result.dequantized.shape == layer.weight.shape
    assert result.dequantized.dtype == layer.weight.dtype
    error = relative_error(layer.weight, result.dequantized, stats)
    assert error < (0.2 if bits == 4 else 0.02)
    assert result.metrics["output_error"] == pytest.approx(error, rel=0.05)


@pytest.mark.parametrize(
    ("options", "format_", "zero_point"),
    [
        ({}, "awq", True),
        ({"zero_point": True}, "awq", True),
        ({"zero_point": False}, "compressed-tensors", False),
        ({"bits": 8}, "compressed-tensors", False),
        ({"bits": 8, "zero_point": False}, "compressed-tensors", False),
        ({"format": "compressed-tensors"}, "compressed-tensors", True),
        ({"format": "compressed-tensors", "bits": 8}, "compressed-tensors", False),
        ({"zero_point": "no"}, "compressed-tensors", False),
    ],
)
def test_what_is_not_given_follows_from_what_is(options: dict[str, Any], format_: str, zero_point: bool) -> None:
    method = load_method("awq")
    config = method.config(options)
    assert isinstance(config, AwqConfig)
    assert (config.format, config.zero_point) == (format_, zero_point)
    # A checkpoint's report holds the options as they were filled in.
    assert method.config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bits": 3}, "bits"),
        ({"group_size": 16}, "group_size"),
        ({"bits": 8, "zero_point": True}, r"read by no runtime; use zero_point: false, or bits: 4"),
        ({"bits": 8, "format": "awq"}, r"awq holds 4 bits only; use format: compressed-tensors, or bits: 4"),
        ({"zero_point": False, "format": "awq"}, r"slow kernels; use format: compressed-tensors, or zero_point: true"),
        ({"format": "gptq"}, "format"),
        ({"search": "both"}, "search"),
        ({"n_grid": 0}, "n_grid"),
        ({"group_sise": 64}, "did you mean group_size"),
    ],
)
def test_bad_options_are_one_line_of_the_user(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        load_method("awq").config(options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        ((1152, 4304), {}, "a.b: group_size 128 does not divide its width of 4304 input channels; use one of: -1"),
        ((1152, 4304), {"group_size": 32}, "group_size 32 does not divide its width of 4304"),
        ((64, 192), {}, "group_size 128 does not divide its width of 192 .* use one of: 32, 64, -1"),
        ((60, 128), {}, "a.b: its 60 output channels are not a multiple of 8; .*zero_point: false"),
        ((60, 128), {"format": "compressed-tensors"}, "60 output channels.*zero_point: false"),
        ((64, 100), {"group_size": -1, "bits": 4}, "100 input channels is not a multiple of 8"),
    ],
)
def test_layers_that_do_not_fit_are_refused_by_name(
    shape: tuple[int, int], options: dict[str, Any], message: str
) -> None:
    method = load_method("awq")
    with pytest.raises(ConfigError, match=message):
        method.check_layers({"fine": (64, 128), "a.b": shape}, method.config(options))


def test_layers_that_fit_are_accepted() -> None:
    method = load_method("awq")
    method.check_layers({"a": (60, 128)}, method.config({"zero_point": False}))
    method.check_layers({"a": (1152, 4304)}, method.config({"group_size": -1}))
    method.check_layers({"a": (3, 4)}, method.config({"group_size": -1, "bits": 8}))


@settings(max_examples=40, deadline=None)
@given(
    outputs=st.integers(1, 20),
    inputs=st.sampled_from([32, 64, 96, 160]),
    options=st.sampled_from(
        [{}, {"group_size": -1}, {"zero_point": False}, {"bits": 8}, {"format": "compressed-tensors"}]
    ),
    dtype=st.sampled_from([torch.bfloat16, torch.float16, torch.float32]),
    seed=st.integers(0, 9),
)
def test_unpacking_inverts_packing(
    outputs: int, inputs: int, options: dict[str, Any], dtype: torch.dtype, seed: int
) -> None:
    config = AwqConfig(**{"group_size": 32, **options})
    rows = 8 * outputs if config.zero_point else outputs
    result = quantize(layer_of("l", rows, inputs, dtype, seed), stats_of(inputs, seed), config)
    tensors = pack(result, config)
    assert torch.equal(unpack(tensors, config), result.dequantized)
    assert result.dequantized.dtype == dtype
    scales = tensors["scales" if config.format == "awq" else "weight_scale"]
    assert scales.dtype == dtype


def test_queries_and_keys_are_not_clipped() -> None:
    stats, config = stats_of(64), AwqConfig(group_size=32, mse_range=True)
    weight = layer_of("", 16, 64).weight.clone()
    weight[:, ::32] *= 6
    stats["hessian"][::32] *= 1e-3
    stats["hessian"][:, ::32] *= 1e-3
    whole = quantize(Layer("v_proj", weight), stats, AwqConfig(group_size=32, mse_range=False)).dequantized
    for name, clipped in (("a.q_proj", False), ("a.k_proj", False), ("a.v_proj", True), ("a.qk_proj", True)):
        assert torch.equal(quantize(Layer(name, weight), stats, config).dequantized, whole) is not clipped


@pytest.mark.parametrize("name", ["m.q_proj", "m.down_proj"])
def test_codes_that_make_up_for_each_other_lose_far_less(name: str) -> None:
    layer, stats = layer_of(name, 48, 256), stats_of(256)
    solved, nearest = (quantize(layer, stats, AwqConfig(rounding=how)) for how in ("gptq", "nearest"))
    errors = [relative_error(layer.weight, found.dequantized, stats) for found in (solved, nearest)]
    assert errors[0] < 0.6 * errors[1]
    assert solved.degraded is None


def test_a_hopeless_hessian_degrades_to_rounding_to_nearest() -> None:
    layer, hessian = layer_of("m.q_proj", 16, 128), torch.eye(128)
    hessian[0, 1] = hessian[1, 0] = 100
    found, nearest = (quantize(layer, {"hessian": hessian}, AwqConfig(rounding=how)) for how in ("gptq", "nearest"))
    assert torch.equal(found.dequantized, nearest.dequantized)
    assert found.degraded is not None
    assert "no Cholesky factor" in found.degraded
    assert nearest.degraded is None


def test_inputs_that_were_all_zero_give_no_error_and_no_nan() -> None:
    result = quantize(layer_of("l", 16, 64), {"hessian": torch.zeros(64, 64)}, AwqConfig(group_size=32))
    assert result.metrics["output_error"] == 0
    assert torch.isfinite(result.dequantized).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_name_the_layer(value: float) -> None:
    bad, stats, config = layer_of("bad", 16, 64), stats_of(64), AwqConfig(group_size=32)
    bad.weight[3, 5] = value
    with pytest.raises(RunError, match="bad: its weight holds NaN"):
        quantize(bad, stats, config)
    stats["hessian"][2, 2] = value
    with pytest.raises(RunError, match="good: the Hessian of its inputs"):
        quantize(layer_of("good", 16, 64), stats, config)


def test_weights_that_overflow_once_quantized_name_the_layer() -> None:
    layer = layer_of("big.q_proj", 16, 64, torch.float16)
    layer.weight[0, 0] = -65472
    with pytest.raises(RunError, match=r"big\.q_proj: its largest weights overflow torch\.float16"):
        quantize(layer, stats_of(64), AwqConfig(group_size=32, zero_point=False))


def test_other_dtypes_and_missing_statistics_name_the_layer() -> None:
    with pytest.raises(RunError, match=r"odd: its weight is torch\.float64"):
        quantize(layer_of("odd", 16, 64, torch.float64), stats_of(64), AwqConfig(group_size=32))
    with pytest.raises(RunError, match="l: needs calibration statistics and was given none"):
        quantize(layer_of("l", 16, 64), None, AwqConfig(group_size=32))


def test_metrics_of_a_wide_layer_come_from_a_fair_sample_of_its_outputs() -> None:
    layer, stats = layer_of("wide", 1300, 64), stats_of(64)
    result = quantize(layer, stats, AwqConfig(group_size=32, zero_point=False))
    assert result.metrics["output_error"] == pytest.approx(
        relative_error(layer.weight, result.dequantized, stats), rel=0.05
    )


@pytest.mark.parametrize("group_size", [64, -1])
def test_awq_checkpoint_config(group_size: int) -> None:
    assert checkpoint_config({"group_size": group_size}) == {
        "quant_method": "awq", "bits": 4, "group_size": group_size, "zero_point": True, "version": "gemm",
        "modules_to_not_convert": ["lm_head", "model.vision_tower.layers.0.fc1"],
    }  # fmt: skip


@pytest.mark.parametrize(("group_size", "strategy", "written"), [(64, "group", 64), (-1, "channel", None)])
@pytest.mark.parametrize(
    ("options", "bits", "symmetric"),
    [({"bits": 8}, 8, True), ({"zero_point": False}, 4, True), ({"format": "compressed-tensors"}, 4, False)],
)
def test_compressed_tensors_checkpoint_config(
    options: dict[str, Any], bits: int, symmetric: bool, group_size: int, strategy: str, written: int | None
) -> None:
    weights = {
        "num_bits": bits, "type": "int", "symmetric": symmetric, "dynamic": False, "strategy": strategy,
        "group_size": written, "actorder": None,
    }  # fmt: skip
    group = {"targets": ["Linear"], "input_activations": None, "output_activations": None, "weights": weights}
    found = checkpoint_config(options | {"group_size": group_size})
    assert found == {
        "quant_method": "compressed-tensors", "format": "pack-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head", "model.vision_tower.layers.0.fc1"], "config_groups": {"group_0": group},
    }  # fmt: skip
    quantization = pytest.importorskip("compressed_tensors.quantization")
    read = quantization.QuantizationConfig.model_validate(found)
    assert read.config_groups["group_0"].weights.num_bits == bits


def test_every_option_is_in_the_readme() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert [name for name in AwqConfig.model_fields if f"| `{name}` |" not in text] == []
