"""The method through the core's own loader: every option, every refusal, and the promises of the contract."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from hyocr_plugin_fp8.config import Fp8Config

from hyocr_core import ConfigError, Layer, MethodConfig, QuantizedNames, RunError, Stats
from hyocr_core.plugin.registry import load_method

METHOD = load_method("fp8")
REFUSED = {("fp8", scheme, "channel") for scheme in ("static", "dynamic")}
COMBINATIONS = list(
    itertools.product(("compressed-tensors", "fp8"), ("static", "dynamic"), (None, "tensor", "channel"), (False, True))
)
NAMES = QuantizedNames(("model.language_model.layers.0.mlp.up_proj",), ("lm_head", "model.vision_tower.layers.0.fc1"))
EIGHT = {"num_bits": 8, "type": "float", "symmetric": True}


def layer_of(part: str, outputs: int = 32, inputs: int = 48, dtype: torch.dtype = torch.bfloat16) -> Layer:
    gen = torch.Generator().manual_seed(outputs + inputs + len(part))
    weight = 0.05 * torch.randn(outputs, inputs, generator=gen)
    weight[outputs // 2] *= 20
    return Layer(f"model.layers.0.self_attn.{part}", weight.to(dtype))


def stats_of(dtype: torch.dtype = torch.bfloat16, cache: bool = False, inputs: int = 48) -> Stats:
    seen = torch.randn(2 * inputs, inputs, generator=torch.Generator().manual_seed(inputs)).cumsum(1)
    stats = {"input_scale": torch.tensor(0.02).to(dtype), "input_error": torch.tensor(0.026), "hessian": seen.T @ seen}
    if cache:
        stats |= {"k_scale": torch.tensor(0.5).to(dtype), "k_error": torch.tensor(0.1)}
        stats |= {"v_scale": torch.tensor(0.25).to(dtype), "v_error": torch.tensor(0.2)}
    return stats


def checkpoint_config(config: MethodConfig, names: QuantizedNames = NAMES) -> dict[str, Any]:
    """The quantization_config of a checkpoint all of whose layers have these options."""
    return METHOD.checkpoint_config(names, dict.fromkeys(names.quantized, config), config)


@pytest.mark.parametrize(("format_", "scheme", "weights", "cache"), COMBINATIONS)
def test_every_combination_works_or_is_refused(format_: str, scheme: str, weights: str | None, cache: bool) -> None:
    options = {"format": format_, "activation_scheme": scheme, "weight_strategy": weights, "kv_cache": cache}
    if (format_, scheme, weights) in REFUSED:
        with pytest.raises(ConfigError, match="use weight_strategy: tensor, or format: compressed-tensors"):
            METHOD.config(options)
        return
    config = METHOD.config(options)
    layers = [layer_of(part, outputs) for part, outputs in (("q_proj", 64), ("k_proj", 16), ("v_proj", 1))]
    stats = stats_of(cache=cache) if config.needs_calibration else None
    results = METHOD.quantize_group(layers, {layer.name: stats for layer in layers} if stats else None, config)
    packed = [METHOD.pack(result, config) for result in results]
    for layer, result, tensors in zip(layers, results, packed, strict=True):
        assert torch.equal(METHOD.unpack(tensors, layer.spec, config), result.dequantized)
        error = ((layer.weight.double() - result.dequantized.double()).norm() / layer.weight.double().norm()).item()
        assert result.metrics["weight_error"] == pytest.approx(error, rel=1e-4)
        assert error < 0.04
        assert result.degraded is None
    per_channel = weights == "channel" or (weights is None and scheme == "dynamic" and format_ == "compressed-tensors")
    scales = [tensors["weight_scale"] for tensors in packed]
    assert [tuple(scale.shape) for scale in scales] == (
        [(64, 1), (16, 1), (1, 1)] if per_channel else [(1,), (1,), (1,)]
    )
    assert all(("input_scale" in tensors) == (scheme == "static") for tensors in packed)
    assert all(tensor.ndim for tensors in packed for tensor in tensors.values()), "Transformers refuses shape ()"
    assert [{*tensors} & {"k_scale", "v_scale"} for tensors in packed] == (
        [set(), {"k_scale"}, {"v_scale"}] if cache else [set()] * 3
    )
    assert checkpoint_config(config)["quant_method"] == format_


def test_layers_quantized_together_share_one_weight_scale_and_one_input_scale() -> None:
    layers, config = [layer_of(part, outputs) for part, outputs in (("q_proj", 64), ("k_proj", 16))], METHOD.config({})
    layers[1].weight.mul_(3)
    results = METHOD.quantize_group(layers, {layer.name: stats_of() for layer in layers}, config)
    packed = [METHOD.pack(result, config) for result in results]
    for name in ("weight_scale", "input_scale"):
        assert torch.equal(packed[0][name], packed[1][name])
    largest = max(layer.weight.abs().max().item() for layer in layers)
    assert packed[0]["weight_scale"] == torch.tensor(largest / 448).bfloat16()
    alone = METHOD.pack(METHOD.quantize_layer(layers[0], stats_of(), config), config)
    assert alone["weight_scale"] < packed[0]["weight_scale"]


@pytest.mark.parametrize("format_", ["compressed-tensors", "fp8"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_scales_and_weights_keep_the_dtype_of_the_weight(dtype: torch.dtype, format_: str) -> None:
    config = METHOD.config({"format": format_})
    layer = layer_of("o_proj", dtype=dtype)
    result = METHOD.quantize_layer(layer, stats_of(dtype), config)
    tensors = METHOD.pack(result, config)
    assert tensors["weight"].dtype == torch.float8_e4m3fn
    assert tensors["weight_scale"].dtype == tensors["input_scale"].dtype == result.dequantized.dtype == dtype
    assert torch.equal(METHOD.unpack(tensors, layer.spec, config), result.dequantized)


@pytest.mark.parametrize("shape", [(1, 16), (16, 1), (33, 7), (1152, 16), (4304, 32), (16, 4608)])
@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_any_shape_survives_packing(shape: tuple[int, int], scheme: str) -> None:
    config = METHOD.config({"activation_scheme": scheme})
    layer = layer_of("o_proj", *shape)
    stats = stats_of(inputs=shape[1]) if scheme == "static" else None
    result = METHOD.quantize_layer(layer, stats, config)
    tensors = METHOD.pack(result, config)
    assert tensors["weight"].shape == shape
    assert torch.equal(METHOD.unpack(tensors, layer.spec, config), result.dequantized)
    # A lone scale may have the shape () in checkpoints of others.
    if scheme == "static":
        again = tensors | {"weight_scale": tensors["weight_scale"].reshape(())}
        assert torch.equal(METHOD.unpack(again, layer.spec, config), result.dequantized)


@pytest.mark.parametrize("options", [{"activation_scheme": "dynamic"}, {}, {"weight_strategy": "channel"}])
def test_a_weight_of_zeros_and_a_row_of_zeros_are_kept(options: dict[str, Any]) -> None:
    config = METHOD.config(options)
    mixed = layer_of("o_proj")
    mixed.weight[3] = 0
    for layer in (Layer("zeros", torch.zeros(16, 16).bfloat16()), mixed):
        result = METHOD.quantize_layer(layer, stats_of(inputs=layer.weight.shape[1]), config)
        tensors = METHOD.pack(result, config)
        assert (tensors["weight_scale"] > 0).all()
        assert not result.dequantized[3].any()
        assert not tensors["weight"].double().isnan().any()


def test_metrics_say_what_the_scales_do() -> None:
    config = METHOD.config({"kv_cache": True})
    [keys] = METHOD.quantize_group([layer_of("k_proj")], {layer_of("k_proj").name: stats_of(cache=True)}, config)
    assert keys.metrics["input_scale"] == pytest.approx(0.02, rel=2**-8)
    assert keys.metrics["input_error"] == pytest.approx(0.026)
    assert keys.metrics["k_scale"] == 0.5
    assert keys.metrics["k_error"] == pytest.approx(0.1)
    assert "v_scale" not in keys.metrics


def test_inputs_are_quantized_as_the_activation_scheme_says() -> None:
    inputs = torch.randn(2, 5, 48, generator=torch.Generator().manual_seed(0)).bfloat16()
    inputs[0, 0, 0] = 100
    static, dynamic = METHOD.config({}), METHOD.config({"activation_scheme": "dynamic"})
    cut = METHOD.quantize_inputs(
        inputs, METHOD.pack(METHOD.quantize_layer(layer_of("o_proj"), stats_of(), static), static), static
    )
    assert cut[0, 0, 0] == 448 * stats_of()["input_scale"]
    kept = METHOD.quantize_inputs(
        inputs, METHOD.pack(METHOD.quantize_layer(layer_of("o_proj"), None, dynamic), dynamic), dynamic
    )
    assert kept[0, 0, 0] == 100
    for found in (cut[0, 1:], kept[0, 1:]):
        assert 0.01 < ((found - inputs[0, 1:]).float().norm() / inputs[0, 1:].float().norm()) < 0.04


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_no_numbers_name_the_layer(value: float) -> None:
    good, bad = layer_of("good"), layer_of("bad")
    bad.weight[3, 5] = value
    with pytest.raises(RunError, match="bad: its weight holds NaN"):
        METHOD.quantize_group([good, bad], None, METHOD.config({"activation_scheme": "dynamic"}))


def test_weights_that_overflow_other_dtypes_and_missing_statistics_name_the_layer() -> None:
    dynamic = METHOD.config({"activation_scheme": "dynamic"})
    large = torch.full((16, 16), torch.finfo(torch.bfloat16).max).bfloat16()
    with pytest.raises(RunError, match=r"big: its largest weights overflow torch\.bfloat16"):
        METHOD.quantize_layer(Layer("big", large), None, dynamic)
    with pytest.raises(RunError, match=r"odd: its weight is torch\.float64"):
        METHOD.quantize_layer(Layer("odd", torch.zeros(16, 16).double()), None, dynamic)
    for rounding in ("gptq", "nearest"):
        with pytest.raises(RunError, match=r"o_proj: .*needs calibration statistics"):
            METHOD.quantize_layer(layer_of("o_proj"), None, METHOD.config({"rounding": rounding}))


@pytest.mark.parametrize("weights", ["tensor", "channel"])
def test_codes_that_make_up_for_each_other_keep_the_outputs(weights: str) -> None:
    """Against each code for itself, by the error over the Hessian in fp64; the scales are the same."""
    layer, stats = layer_of("o_proj", dtype=torch.float32), stats_of(torch.float32)
    found = {}
    for rounding in ("gptq", "nearest"):
        config = METHOD.config({"rounding": rounding, "weight_strategy": weights})
        found[rounding] = METHOD.quantize_layer(layer, stats, config)
    assert torch.equal(*(result.tensors["weight_scale"] for result in found.values()))
    hessian = stats["hessian"].double()
    whole = torch.einsum("ni,ij,nj->", layer.weight.double(), hessian, layer.weight.double())
    lost = {}
    for rounding, result in found.items():
        change = (layer.weight - result.dequantized).double()
        lost[rounding] = (torch.einsum("ni,ij,nj->", change, hessian, change) / whole).sqrt().item()
    assert lost["gptq"] < 0.5 * lost["nearest"]
    assert found["gptq"].metrics["output_error"] == pytest.approx(lost["gptq"], rel=0.1)
    assert found["gptq"].metrics["weight_error"] < 0.05


def test_without_a_factor_codes_are_nearest_and_the_layer_says_so() -> None:
    layer, stats = layer_of("o_proj"), stats_of()
    stats["hessian"] = -stats["hessian"]
    result = METHOD.quantize_layer(layer, stats, METHOD.config({}))
    assert result.degraded == "its Hessian has no Cholesky factor even with damping 10; rounded to nearest"
    nearest = METHOD.quantize_layer(layer, stats, METHOD.config({"rounding": "nearest"}))
    assert torch.equal(result.dequantized, nearest.dequantized)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "fp8", "weight_strategy": "channel"}, "use weight_strategy: tensor, or format: compressed-tensors"),
        ({"activation_scheme": "dynamic", "observer": "mse"}, "use activation_scheme: static, or kv_cache: true"),
        ({"percentile": 99.0}, "percentile is read by observer: percentile only; set that"),
        ({"observer": "percentile", "percentile": 0}, "percentile"),
        ({"observer": "percentile", "percentile": 101}, "percentile"),
        (
            {"weighting": "balanced", "rounding": "nearest"},
            "use observer: percentile or mse, or rounding: gptq, or leave",
        ),
        ({"activation_scheme": "none"}, "activation_scheme"),
        ({"format": "gptq"}, "format"),
        ({"kv_cash": True}, "kv_cache"),
    ],
)
def test_bad_options_are_one_line_of_the_user(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        METHOD.config(options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "needed"),
    [
        ({}, True),
        ({"activation_scheme": "dynamic"}, False),
        ({"activation_scheme": "dynamic", "kv_cache": True}, True),
        ({"activation_scheme": "dynamic", "rounding": "gptq"}, True),
        ({"activation_scheme": "dynamic", "kv_cache": True, "observer": "mse"}, True),
    ],
)
def test_data_is_needed_for_static_scales_and_hessians_only(options: dict[str, Any], needed: bool) -> None:
    config = METHOD.config(options)
    assert config.needs_calibration is needed
    assert METHOD.spec.needs_calibration
    # A run keeps its options in the checkpoint's report and reads them back.
    assert METHOD.config(config.model_dump(mode="json")) == config


@pytest.mark.parametrize("shape", [(24, 64), (64, 24)])
def test_layers_that_kernels_refuse_are_refused_by_name(shape: tuple[int, int]) -> None:
    with pytest.raises(ConfigError, match=r"a\.b: its .* channels are not both multiples of 16.*`ignore`"):
        METHOD.check_layers({"fine": (64, 128), "a.b": shape}, METHOD.config({}))


def test_layers_of_the_published_model_are_accepted() -> None:
    widths = {(2048, 1024), (1024, 3584), (1152, 1152), (4304, 1152), (1152, 4304), (1024, 4608)}
    METHOD.check_layers({f"l{n}": shape for n, shape in enumerate(widths)}, METHOD.config({}))


def test_a_cache_without_scales_in_one_block_is_refused() -> None:
    ignored = (
        *NAMES.ignored,
        "model.vision_tower.layers.1.self_attn.k_proj",
        "model.language_model.layers.1.mlp.up_proj",
    )
    config = METHOD.config({"kv_cache": True})
    checkpoint_config(config, QuantizedNames(NAMES.quantized, ignored))
    late = QuantizedNames(NAMES.quantized, (*ignored, "model.language_model.layers.1.self_attn.v_proj"))
    checkpoint_config(METHOD.config({}), late)
    with pytest.raises(ConfigError, match=r"model\.language_model\.layers\.1\.self_attn\.v_proj: kv_cache: true"):
        checkpoint_config(config, late)


def test_a_cache_with_scales_in_some_layers_only_is_refused() -> None:
    names = tuple(f"model.language_model.layers.0.self_attn.{part}_proj" for part in ("k", "v"))
    with_cache, without = METHOD.config({"kv_cache": True}), METHOD.config({})
    METHOD.checkpoint_config(QuantizedNames(names, ()), dict.fromkeys(names, with_cache), with_cache)
    for base in (with_cache, without):
        layers = {names[0]: with_cache, names[1]: without}
        with pytest.raises(ConfigError, match=rf"{names[1]}: kv_cache is false in `overrides`, but the cache is FP8"):
            METHOD.checkpoint_config(QuantizedNames(names, ()), layers, base)


@pytest.mark.parametrize("options", [{}, {"activation_scheme": "dynamic"}, {"kv_cache": True}])
def test_compressed_tensors_checkpoint_config(options: dict[str, Any]) -> None:
    dynamic = "activation_scheme" in options
    group = {
        "targets": ["Linear"],
        "weights": EIGHT | {"dynamic": False, "strategy": "channel" if dynamic else "tensor"},
        "input_activations": EIGHT | {"dynamic": dynamic, "strategy": "token" if dynamic else "tensor"},
        "output_activations": None,
    }
    expected: dict[str, Any] = {
        "quant_method": "compressed-tensors", "format": "float-quantized", "quantization_status": "compressed",
        "ignore": ["lm_head", "model.vision_tower.layers.0.fc1"], "config_groups": {"group_0": group},
    }  # fmt: skip
    if "kv_cache" in options:
        expected["kv_cache_scheme"] = EIGHT | {"dynamic": False, "strategy": "tensor"}
    assert checkpoint_config(METHOD.config(options)) == expected


@pytest.mark.parametrize("scheme", ["static", "dynamic"])
def test_fp8_checkpoint_config(scheme: str) -> None:
    config = METHOD.config({"format": "fp8", "activation_scheme": scheme})
    assert checkpoint_config(config) == {
        "quant_method": "fp8", "activation_scheme": scheme,
        "ignored_layers": ["lm_head", "model.vision_tower.layers.0.fc1"],
    }  # fmt: skip


@pytest.mark.parametrize("options", [{}, {"activation_scheme": "dynamic"}, {"kv_cache": True}])
def test_the_compressed_tensors_library_accepts_the_config(options: dict[str, Any]) -> None:
    quantization = pytest.importorskip("compressed_tensors.quantization")
    found = checkpoint_config(METHOD.config(options))
    read = quantization.QuantizationConfig.model_validate(found)
    assert read.config_groups["group_0"].weights.num_bits == 8
    assert (read.kv_cache_scheme is not None) == ("kv_cache" in options)


def test_every_option_is_in_the_readme() -> None:
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    assert [name for name in Fp8Config.model_fields if f"`{name}`" not in text] == []
