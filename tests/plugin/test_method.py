"""Calls into a plugin: what it returns is checked, and an error names method, distribution, hook and layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from hyocr_core.contract.types import Batch, Block, Layer, QuantizedNames
from hyocr_core.errors import ConfigError, HookError, RunError
from hyocr_core.plugin.registry import Method, load_method

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

NAME = "model.layers.3.mlp.up_proj"
WHERE = "method odd (hyocr-plugin-odd 0.0.1), hook {hook}, " + NAME + ": "

SOURCE = """
import torch
from hyocr_core import ConfigError, MethodSpec, QuantizedLayer, RunError, hookimpl
from hyocr_plugin_toy import plugin as toy
from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

@hookimpl
def method_spec():
    return MethodSpec("odd", ToyConfig, "odd", api_version=1, needs_calibration=False)
"""

RESULT = "@hookimpl\ndef quantize_layer(layer, stats, config):\n    good = toy.quantize_layer(layer, config)\n    {}\n"
GROUP = """
@hookimpl
def quantize_group(layers, config):
    good = [toy.quantize_layer(layer, config) for layer in layers]
    {}
"""


@pytest.fixture
def layer() -> Layer:
    weight = torch.randn(6, 8, generator=torch.Generator().manual_seed(1)).bfloat16()
    return Layer(NAME, weight)


def odd(plugins: PluginFolder, body: str) -> Method:
    """Load the toy method with some of its hooks replaced by `body`."""
    plugins.toy()
    plugins.module("odd", SOURCE + body)
    return load_method("odd")


def toy(plugins: PluginFolder) -> Method:
    plugins.toy()
    return load_method("toy")


def test_the_toy_works_from_end_to_end(plugins: PluginFolder, layer: Layer) -> None:
    method = toy(plugins)
    config = method.config({})
    quantized = method.quantize_layer(layer, None, config)
    packed = method.pack(quantized, config)
    assert torch.equal(method.unpack(packed, config, layer.name), quantized.dequantized)
    assert (packed["weight_packed"].shape, packed["weight_packed"].dtype) == ((6, 2), torch.int32)
    word, scale = int(packed["weight_packed"][2, 1]), packed["weight_scale"][2].item()
    read = [((word >> shift & 255) - 128) * scale for shift in (0, 8, 16, 24)]
    assert quantized.dequantized[2, 4:].tolist() == torch.tensor(read).bfloat16().tolist()
    assert torch.all((quantized.dequantized - layer.weight).abs() <= packed["weight_scale"])
    names = QuantizedNames((NAME,), ("lm_head",))
    assert method.checkpoint_config(names, config)["ignore"] == ["lm_head"]


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
    ],
)
def test_packing_that_breaks_the_contract(
    plugins: PluginFolder, layer: Layer, hook: str, body: str, problem: str
) -> None:
    method = odd(plugins, f"@hookimpl\n{body}\n")
    config = method.config({})
    quantized = method.quantize_layer(layer, None, config)
    with pytest.raises(HookError) as caught:
        method.unpack(method.pack(quantized, config), config, NAME)
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
        method.checkpoint_config(QuantizedNames((), ()), method.config({}))
    assert str(caught.value).startswith(f"method odd (hyocr-plugin-odd 0.0.1), hook checkpoint_config: {problem}")


def test_check_layers_refuses_by_raising_only(plugins: PluginFolder) -> None:
    method = odd(plugins, "@hookimpl\ndef check_layers(shapes):\n    return ['too wide']\n")
    with pytest.raises(HookError, match="hook check_layers: returned a value; a layer is refused by raising"):
        method.check_layers({}, method.config({}))


class NoBatches:
    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Batch]:
        return iter(())


def block_of(layers: Mapping[str, nn.Linear]) -> Block:
    def run(batch: Batch) -> Tensor:
        return batch.hidden_states

    return Block(3, "model.layers.3", nn.Module(), layers, (tuple(layers),), run)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("None", "must return a dict of stats by layer name, not nothing (None)"),
        ("{'a': {}}", "returned no stats for b"),
        ("{'a': {}, 'b': {}, 'c': {}}", "returned stats for 'c', no layer"),
        ("{'a': {}, 'b': {'h': 1}}", "b: must return a dict of tensors, but 'h' is a value of type int"),
    ],
)
def test_calibrate_must_answer_for_every_layer(plugins: PluginFolder, value: str, problem: str) -> None:
    method = odd(plugins, f"@hookimpl\ndef calibrate(block):\n    return {value}\n")
    block = block_of({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    with pytest.raises(HookError) as caught:
        method.calibrate(block, NoBatches(), method.config({}))
    assert str(caught.value) == f"method odd (hyocr-plugin-odd 0.0.1), hook calibrate, model.layers.3: {problem}"


def test_calibrate_returns_the_stats(plugins: PluginFolder) -> None:
    block = block_of({"a": nn.Linear(2, 2)})
    body = "@hookimpl\ndef calibrate(block):\n    return {name: {'h': torch.ones(2)} for name in block.layers}\n"
    method = odd(plugins, body)
    assert method.calibrate(block, NoBatches(), method.config({}))["a"]["h"].tolist() == [1, 1]
    assert toy(plugins).calibrate(block, NoBatches(), method.config({})) == {}


INPUTS_HOOK = "@hookimpl\ndef quantize_inputs(inputs, tensors, config):\n    {}\n"


def test_quantized_inputs_are_what_the_hook_makes_of_them(plugins: PluginFolder) -> None:
    inputs = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0)).bfloat16()
    assert not toy(plugins).quantizes_inputs
    method = odd(plugins, INPUTS_HOOK.format("return inputs * tensors['s']"))
    assert method.quantizes_inputs
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


def pair(layer: Layer) -> list[Layer]:
    return [Layer("q", layer.weight), Layer("k", layer.weight.neg())]


def test_quantize_group_is_called_once_for_the_group(plugins: PluginFolder, layer: Layer) -> None:
    method = odd(plugins, GROUP.format("print(len(good)); return good"))
    found = method.quantize_group(pair(layer), None, method.config({}))
    alone = [toy(plugins).quantize_layer(one, None, method.config({})) for one in pair(layer)]
    assert [item.name for item in found] == ["q", "k"]
    assert all(torch.equal(a.dequantized, b.dequantized) for a, b in zip(found, alone, strict=True))


def test_without_quantize_group_each_layer_is_quantized(plugins: PluginFolder, layer: Layer) -> None:
    method = toy(plugins)
    found = method.quantize_group(pair(layer), None, method.config({}))
    assert [item.name for item in found] == ["q", "k"]


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return good[:1]", "q, k: must return a list of 2, not a list of 1"),
        ("return None", "q, k: must return a list of 2, not nothing (None)"),
        ("return good[::-1]", "q, k: q: returned a result named 'k'"),
        ("layers[1].weight.data[0] = 0; return good", "k: wrote into the weight it was given; work on a copy"),
        ("raise KeyError('x')", "q, k: KeyError: 'x'"),
    ],
)
def test_a_group_that_breaks_the_contract(plugins: PluginFolder, layer: Layer, body: str, problem: str) -> None:
    method = odd(plugins, GROUP.format(body))
    with pytest.raises(HookError) as caught:
        method.quantize_group(pair(layer), None, method.config({}))
    assert str(caught.value) == f"method odd (hyocr-plugin-odd 0.0.1), hook quantize_group, {problem}"


def test_shared_stats_may_not_be_written(plugins: PluginFolder, layer: Layer) -> None:
    method = odd(plugins, RESULT.format("stats['h'].add_(1); return good"))
    shared = {"h": torch.zeros(1)}
    with pytest.raises(HookError, match="hook quantize_layer, q: wrote into its stats, which other layers share"):
        method.quantize_group(pair(layer), {"q": shared, "k": shared}, method.config({}))


def test_each_layer_of_a_group_gets_its_own_stats(plugins: PluginFolder, layer: Layer) -> None:
    body = "return QuantizedLayer(layer.name, good.tensors, good.dequantized, {'seen': float(stats['h'])})"
    method = odd(plugins, RESULT.replace("{}", body))
    stats = {"q": {"h": torch.ones(1)}, "k": {"h": torch.full((1,), 2.0)}}
    found = method.quantize_group(pair(layer), stats, method.config({}))
    assert [item.metrics["seen"] for item in found] == [1.0, 2.0]


@pytest.mark.parametrize("stats", [None, {}])
def test_without_calibration_the_stats_are_none(
    plugins: PluginFolder, layer: Layer, stats: dict[str, dict[str, Tensor]] | None
) -> None:
    method = odd(plugins, RESULT.format("assert stats is None; return good"))
    assert len(method.quantize_group(pair(layer), stats, method.config({}))) == 2


def test_a_group_hook_gets_the_stats_of_its_first_layer(plugins: PluginFolder, layer: Layer) -> None:
    body = GROUP.replace("(layers, config)", "(layers, stats, config)", 1)
    method = odd(plugins, body.format("assert stats['h'] == 1; return good"))
    stats = {"q": {"h": torch.ones(1)}, "k": {"h": torch.full((1,), 2.0)}}
    assert len(method.quantize_group(pair(layer), stats, method.config({}))) == 2
