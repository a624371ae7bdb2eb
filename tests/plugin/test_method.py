"""Calls into a plugin: what it returns is checked, and an error names method, distribution, hook and layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch

from hyocr_core.contract.types import Layer, QuantizedNames
from hyocr_core.errors import ConfigError, HookError, RunError
from hyocr_core.plugin.registry import load_method
from tests.plugin.odd import NAME, RESULT, WHERE, odd, pair, toy

if TYPE_CHECKING:
    from tests.conftest import PluginFolder


def test_the_toy_works_from_end_to_end(plugins: PluginFolder, layer: Layer) -> None:
    method = toy(plugins)
    config = method.config({})
    quantized = method.quantize_layer(layer, None, config)
    packed = method.pack(quantized, config)
    assert torch.equal(method.unpack(packed, layer.spec, config), quantized.dequantized)
    assert (packed["weight_packed"].shape, packed["weight_packed"].dtype) == ((6, 2), torch.int32)
    word, scale = int(packed["weight_packed"][2, 1]), packed["weight_scale"][2].item()
    read = [((word >> shift & 255) - 128) * scale for shift in (0, 8, 16, 24)]
    assert quantized.dequantized[2, 4:].tolist() == torch.tensor(read).bfloat16().tolist()
    assert torch.all((quantized.dequantized - layer.weight).abs() <= packed["weight_scale"])
    names = QuantizedNames((NAME,), ("lm_head",))
    assert method.checkpoint_config(names, {NAME: config}, config)["ignore"] == ["lm_head"]


def test_the_toy_refuses_a_width_before_any_weight(plugins: PluginFolder) -> None:
    method = toy(plugins)
    config = method.config({})
    method.check_layers({"a": (5, 8)}, config)
    with pytest.raises(ConfigError, match=r"^method toy \(hyocr-plugin-toy 1.2.3\), hook check_layers: a is 6 wide"):
        method.check_layers({"a": (5, 6)}, config)


def test_config_errors_name_the_method_and_key(plugins: PluginFolder) -> None:
    with pytest.raises(ConfigError) as caught:
        toy(plugins).config({"clip": 2, "clipp": 1})
    assert str(caught.value) == (
        "method toy (hyocr-plugin-toy 1.2.3): options: clip = 2: should be less than or equal to 1; "
        "clipp: unknown key; did you mean clip?"
    )


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("raises", "ValueError: the sky fell second line"),
        ("exits", "SystemExit: 0"),
        ("returns_none", "must return a QuantizedLayer, not nothing (None)"),
        ("writes_input", "wrote into the weight it was given; work on a copy"),
    ],
)
def test_a_hostile_hook_is_named(plugins: PluginFolder, layer: Layer, name: str, problem: str) -> None:
    plugins.hostile(name)
    method = load_method(name)
    with pytest.raises(HookError) as caught:
        method.quantize_group([layer], None, method.config({}))
    source = f"hyocr-plugin-{name.replace('_', '-')} 0.0.1"
    assert str(caught.value) == f"method {name} ({source}), hook quantize_layer, {NAME}: {problem}"


def test_the_cause_of_a_hook_error_is_kept(plugins: PluginFolder, layer: Layer) -> None:
    plugins.hostile("raises")
    method = load_method("raises")
    with pytest.raises(HookError) as caught:
        method.quantize_layer(layer, None, method.config({}))
    assert isinstance(caught.value.__cause__, ValueError)


def test_an_error_meant_for_the_user_keeps_its_class(plugins: PluginFolder, layer: Layer) -> None:
    method = odd(plugins, "@hookimpl\ndef pack(layer):\n    raise RunError('zero scale')\n")
    quantized = method.quantize_layer(layer, None, method.config({}))
    with pytest.raises(RunError) as caught:
        method.pack(quantized, method.config({}))
    assert type(caught.value) is RunError
    assert str(caught.value) == WHERE.format(hook="pack") + "zero scale"


def test_ctrl_c_passes_through(plugins: PluginFolder, layer: Layer) -> None:
    method = odd(plugins, "@hookimpl\ndef quantize_layer(layer):\n    raise KeyboardInterrupt\n")
    with pytest.raises(KeyboardInterrupt):
        method.quantize_layer(layer, None, method.config({}))


def test_what_a_hook_prints_stays_off_stdout(
    plugins: PluginFolder, layer: Layer, capsys: pytest.CaptureFixture[str]
) -> None:
    method = odd(plugins, "print('imported')\n" + RESULT.format("print('called'); return good"))
    method.quantize_layer(layer, None, method.config({}))
    assert capsys.readouterr() == ("", "imported\ncalled\n")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return (good,)", "must return a QuantizedLayer, not a tuple of 1"),
        ("return QuantizedLayer('b', good.tensors, good.dequantized)", "returned a result named 'b'"),
        ("return QuantizedLayer(layer.name, good.tensors, None)", "must return a tensor, not nothing (None)"),
        (
            "return QuantizedLayer(layer.name, good.tensors, good.dequantized.float())",
            "dequantized is torch.float32 (6, 8), the weight torch.bfloat16 (6, 8)",
        ),
        (
            "return QuantizedLayer(layer.name, good.tensors, good.dequantized.T)",
            "dequantized is torch.bfloat16 (8, 6), the weight torch.bfloat16 (6, 8)",
        ),
        (
            "return QuantizedLayer(layer.name, good.tensors, good.dequantized / 0)",
            "returned NaN or infinite values",
        ),
        (
            "return QuantizedLayer(layer.name, {'codes': [1]}, good.dequantized)",
            "must return a dict of tensors, but 'codes' is a list of 1",
        ),
        (
            "return QuantizedLayer(layer.name, good.tensors, good.dequantized, {'error': good.dequantized[0, 0]})",
            "metric 'error' is a value of type Tensor, not a float",
        ),
        (
            "layer.weight.data.copy_(layer.weight.data[:, [1, 0, 2, 3, 4, 5, 6, 7]]); return good",
            "wrote into the weight it was given; work on a copy",
        ),
    ],
)
def test_a_result_that_breaks_the_contract(plugins: PluginFolder, layer: Layer, body: str, problem: str) -> None:
    method = odd(plugins, RESULT.format(body))
    with pytest.raises(HookError) as caught:
        method.quantize_layer(layer, None, method.config({}))
    assert str(caught.value) == WHERE.format(hook="quantize_layer") + problem


def test_a_weight_that_holds_nan_is_not_taken_for_a_changed_one(plugins: PluginFolder, layer: Layer) -> None:
    layer.weight[0, 0] = float("nan")
    with pytest.raises(HookError, match="returned NaN or infinite values"):
        toy(plugins).quantize_layer(layer, None, toy(plugins).config({}))


@pytest.mark.parametrize(
    ("hook", "body", "problem"),
    [
        ("pack", "def pack(layer): return None", "must return a dict of tensors, not nothing (None)"),
        ("pack", "def pack(layer): return {}", "returned no tensors"),
        (
            "pack",
            "def pack(layer): return {'layers.0.qweight': layer.tensors['codes']}",
            "must use local names such as 'qweight', not 'layers.0.qweight'",
        ),
        ("unpack", "def unpack(tensors): return tensors", "must return a tensor, not a value of type dict"),
        (
            "unpack",
            "def unpack(tensors): return tensors['weight_packed']",
            "must return a floating-point weight (N, K), not torch.int32 (6, 2)",
        ),
        (
            "unpack",
            "def unpack(tensors): return tensors['weight_packed'].float()",
            "returned a weight of shape [6, 2], the layer has [6, 8]",
        ),
        (
            "unpack",
            "def unpack(layer): return torch.full(layer.shape, float('nan'), dtype=layer.dtype)",
            "returned NaN or infinite values",
        ),
    ],
)
def test_packing_that_breaks_the_contract(
    plugins: PluginFolder, layer: Layer, hook: str, body: str, problem: str
) -> None:
    method = odd(plugins, f"@hookimpl\n{body}\n")
    config = method.config({})
    quantized = method.quantize_layer(layer, None, config)
    with pytest.raises(HookError) as caught:
        method.unpack(method.pack(quantized, config), layer.spec, config)
    assert str(caught.value) == WHERE.format(hook=hook) + problem


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("None", "must return a dict, not nothing (None)"),
        ("{'bits': 8}", "must return a dict with 'quant_method'; runtimes choose their kernels by it"),
        ("{'quant_method': 'x', 'scale': float('nan')}", "returned what JSON cannot hold: "),
        ("{'quant_method': 'x', 'names': {1}}", "returned what JSON cannot hold: Object of type set"),
    ],
)
def test_a_quantization_config_that_breaks_the_contract(plugins: PluginFolder, value: str, problem: str) -> None:
    method = odd(plugins, f"@hookimpl\ndef checkpoint_config(names):\n    return {value}\n")
    with pytest.raises(HookError) as caught:
        method.checkpoint_config(QuantizedNames((), ()), {}, method.config({}))
    assert str(caught.value).startswith(f"method odd (hyocr-plugin-odd 0.0.1), hook checkpoint_config: {problem}")


def test_check_layers_refuses_by_raising_only(plugins: PluginFolder) -> None:
    method = odd(plugins, "@hookimpl\ndef check_layers(shapes):\n    return ['too wide']\n")
    with pytest.raises(
        HookError, match=r"hook check_layers: must return nothing, not a list of 1; .* raised as ConfigError"
    ):
        method.check_layers({}, method.config({}))


SEEDED = """
@hookimpl
def quantize_layer(layer, config, seed):
    good = toy.quantize_layer(layer, config)
    return QuantizedLayer(layer.name, good.tensors, good.dequantized, {'seed': float(seed)})
"""


def test_a_hook_that_asks_for_the_seed_is_given_it(plugins: PluginFolder, layer: Layer) -> None:
    method = odd(plugins, SEEDED)
    assert method.quantize_layer(layer, None, method.config({}), 5).metrics["seed"] == 5
    assert [each.metrics["seed"] for each in method.quantize_group(pair(layer), None, method.config({}), 6)] == [6, 6]


INPUTS_HOOK = "@hookimpl\ndef quantize_inputs(inputs, tensors, config):\n    {}\n"


def test_quantized_inputs_are_what_the_hook_makes_of_them(plugins: PluginFolder) -> None:
    inputs = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert not toy(plugins).implements("quantize_inputs")
    method = odd(plugins, INPUTS_HOOK.format("return inputs * tensors['s']"))
    assert method.implements("quantize_inputs")
    found = method.quantize_inputs(inputs, {"s": torch.tensor(2.0)}, method.config({}), NAME)
    assert torch.equal(found, inputs * 2)


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("pass", "must return a tensor, not nothing (None)"),
        ("return inputs.float()", "returned torch.float32 (2, 4) for inputs of torch.bfloat16 (2, 4)"),
        ("return inputs[:1]", "returned torch.bfloat16 (1, 4) for inputs of torch.bfloat16 (2, 4)"),
    ],
)
def test_quantized_inputs_keep_shape_and_dtype(plugins: PluginFolder, body: str, problem: str) -> None:
    method = odd(plugins, INPUTS_HOOK.format(body))
    with pytest.raises(HookError) as caught:
        method.quantize_inputs(torch.ones(2, 4, dtype=torch.bfloat16), {}, method.config({}), NAME)
    assert str(caught.value) == WHERE.format(hook="quantize_inputs") + problem


def test_a_bias_is_not_packed(plugins: PluginFolder, layer: Layer) -> None:
    method = odd(plugins, "@hookimpl\ndef pack(layer):\n    return {'bias': torch.ones(1)}\n")
    with pytest.raises(HookError, match="must leave 'bias' to the layer"):
        method.pack(method.quantize_layer(layer, None, method.config({})), method.config({}))
