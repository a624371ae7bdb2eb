"""Calls into a plugin: what it returns is checked, and an error names method, distribution, hook and layer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, ClassVar

import pytest
import torch
from torch import Tensor, nn

from hyocr_core.contract.types import Batch, Block, Layer, LayerSpec, Prepared, QuantizedNames, Stats
from hyocr_core.errors import ConfigError, HookError, MethodError, RunError
from hyocr_core.plugin.registry import Method, load_method

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

NAME = "model.layers.3.mlp.up_proj"
WHERE = "method odd (hyocr-plugin-odd 0.0.1), hook {hook}, " + NAME + ": "

SOURCE = """
import torch
from hyocr_core import ConfigError, MethodSpec, Prepared, QuantizedLayer, RunError, Stat, hookimpl
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


class NoBatches:
    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[Batch]:
        return iter(())


def block_of(layers: Mapping[str, nn.Linear]) -> Block:
    """A block whose layers add up."""

    def run(batch: Batch) -> Tensor:
        return torch.stack([layer(batch.hidden_states) for layer in layers.values()]).sum(0)

    return Block(3, "model.layers.3", nn.ModuleDict(layers), layers, (tuple(layers),), run)


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("None", "must return a dict of stats by layer name, not nothing (None)"),
        ("{'a': {}}", "returned no stats for b"),
        ("{'a': {}, 'b': {}, 'c': {}}", "returned stats for 'c', no layer"),
        ("{'a': {}, 'b': torch.ones(2)}", "b: must be a dict of Stat, not a value of type Tensor"),
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
    body = "@hookimpl\ndef calibrate(block):\n    return {'a': {'h': Stat(torch.ones(2), 'sum')}}\n"
    method = odd(plugins, body)
    found = method.calibrate(block, NoBatches(), method.config({}))["a"]["h"]
    assert (found.value.tolist(), found.merge) == ([1, 1], "sum")
    assert toy(plugins).calibrate(block, NoBatches(), method.config({})) == {}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        (
            "torch.ones(2)",
            "a: 'h' is a value of type Tensor, which does not say how it merges with that of other samples; "
            'return Stat(tensor, "sum") or Stat(tensor, "max")',
        ),
        (
            "3",
            "a: 'h' is a value of type int, which does not say how it merges with that of other samples; "
            'return Stat(tensor, "sum") or Stat(tensor, "max")',
        ),
        ("Stat(torch.ones(2), 'mean')", "a: 'h' must be a tensor that merges by sum or max, not 'mean'"),
        ("Stat(1.0, 'sum')", "a: 'h' must be a tensor that merges by sum or max, not 'sum'"),
    ],
)
def test_statistics_that_cannot_be_merged_are_the_methods_fault(
    plugins: PluginFolder, value: str, problem: str
) -> None:
    method = odd(plugins, f"@hookimpl\ndef calibrate(block):\n    return {{'a': {{'h': {value}}}}}\n")
    with pytest.raises(MethodError) as caught:
        method.calibrate(block_of({"a": nn.Linear(2, 2)}), NoBatches(), method.config({}))
    assert str(caught.value) == f"method odd (hyocr-plugin-odd 0.0.1), hook calibrate, model.layers.3: {problem}"
    assert caught.value.exit_code == 2


CHANGES = "next(iter(block.layers.values())).weight.data.mul_({factor})"


RESCALES = """
@hookimpl
def method_spec():
    return MethodSpec("odd", ToyConfig, "odd", api_version=1, needs_calibration=False, rescales_block={})
"""


@pytest.mark.parametrize("rescales", ["False", "True"])
def test_calibrate_may_not_change_the_block(plugins: PluginFolder, rescales: str) -> None:
    body = f"@hookimpl\ndef calibrate(block):\n    {CHANGES.format(factor=2)}\n    return {{'a': {{}}}}\n"
    method = odd(plugins, body + RESCALES.format(rescales))
    with pytest.raises(HookError) as caught:
        method.calibrate(block_of({"a": nn.Linear(2, 2)}), NoBatches(), method.config({}))
    assert str(caught.value) == (
        "method odd (hyocr-plugin-odd 0.0.1), hook calibrate, model.layers.3: changed a.weight, "
        "but calibrate only gathers, and settle may rescale"
    )


SETTLE = "@hookimpl\ndef settle(block, batches, stats, config, seed):\n    {}\n"


def settle(method: Method, block: Block, stats: dict[str, Stats], seed: int = 0) -> dict[str, Stats]:
    samples = [Batch("s", torch.ones(1, 3, 2), {})]
    return method.settle(block, samples, stats, method.config({}), seed)


def test_without_settle_the_merged_values_are_what_is_quantized_with(plugins: PluginFolder) -> None:
    stats = {"a": {"h": torch.ones(2)}}
    assert settle(toy(plugins), block_of({"a": nn.Linear(2, 2)}), stats) is stats


def test_settle_makes_of_merged_values_what_quantizing_needs(plugins: PluginFolder) -> None:
    body = "stats['a']['h'] /= 2; return {'a': {'half': stats['a']['h'], 'seed': torch.tensor(seed)}}"
    method = odd(plugins, SETTLE.format(body))
    found = settle(method, block_of({"a": nn.Linear(2, 2)}), {"a": {"h": torch.ones(2)}}, seed=7)
    assert {name: tensor.tolist() for name, tensor in found["a"].items()} == {"half": [0.5, 0.5], "seed": 7}


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("return None", "must return a dict of stats by layer name, not nothing (None)"),
        ("return {}", "returned no stats for a"),
        ("return stats | {'b': {}}", "returned stats for 'b', no layer"),
        ("return {'a': {'h': 1}}", "a: must return a dict of tensors, but 'h' is a value of type int"),
        (
            "return {'a': {'h': Stat(torch.ones(1), 'sum')}}",
            "a: must return a dict of tensors, but 'h' is a value of type Stat",
        ),
        (
            CHANGES.format(factor=2) + "; return stats",
            "changed a.weight, but its method_spec does not say rescales_block",
        ),
    ],
)
def test_settling_that_breaks_the_contract(plugins: PluginFolder, body: str, problem: str) -> None:
    method = odd(plugins, SETTLE.format(body))
    with pytest.raises(HookError) as caught:
        settle(method, block_of({"a": nn.Linear(2, 2)}), {"a": {}})
    assert str(caught.value) == f"method odd (hyocr-plugin-odd 0.0.1), hook settle, model.layers.3: {problem}"


@pytest.mark.parametrize("factor", ["2", "float('nan')"])
def test_a_method_that_rescales_must_keep_what_the_block_computes(plugins: PluginFolder, factor: str) -> None:
    body = SETTLE.format(CHANGES.format(factor=factor) + "; return stats")
    method = odd(plugins, body + RESCALES.format("True"))
    with pytest.raises(HookError, match=r"hook settle, model\.layers\.3: changed the block's output by .*%; rescaling"):
        settle(method, block_of({"a": nn.Linear(2, 2)}), {"a": {}})


def test_a_method_that_rescales_may_change_weights_that_make_up_for_each_other(plugins: PluginFolder) -> None:
    swaps = "a, b = (layer.weight.data for layer in block.layers.values()); kept = a.clone(); "
    body = SETTLE.format(swaps + "a.copy_(b); b.copy_(kept); return stats")
    block = block_of({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    before = [layer.weight.detach().clone() for layer in block.layers.values()]
    settle(odd(plugins, body + RESCALES.format("True")), block, {"a": {}, "b": {}})
    after = [layer.weight.detach() for layer in block.layers.values()]
    assert torch.equal(after[0], before[1])
    assert torch.equal(after[1], before[0])


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


PACKS = "@hookimpl\ndef pack(layer):\n    packed = toy.pack(layer)\n    {}\n    return packed\n"


def test_what_is_packed_exactly_is_what_pack_returns(plugins: PluginFolder, layer: Layer) -> None:
    method = toy(plugins)
    quantized = method.quantize_layer(layer, None, method.config({}))
    exact, plain = method.pack_exactly(quantized, method.config({})), method.pack(quantized, method.config({}))
    assert exact.keys() == plain.keys()
    assert all(torch.equal(tensor, plain[name]) for name, tensor in exact.items())


@pytest.mark.parametrize(
    ("lie", "hook", "problem"),
    [
        ("packed['weight_scale'][2] = float('nan')", "unpack", "returned NaN or infinite values"),
        (
            "packed['weight_packed'].zero_()",
            "pack",
            "lost something: unpack does not give the weight back: 48 of 48 values differ, the first at [0, 0]: ",
        ),
        (
            "packed['weight_packed'][5, 1] ^= 1 << 24",
            "pack",
            "lost something: unpack does not give the weight back: 1 of 48 values differ, the first at [5, 7]: ",
        ),
        (
            "packed['weight_scale'] = packed['weight_scale'].float()",
            "pack",
            "lost something: unpack does not give the weight back: "
            "torch.float32 (6, 8) instead of torch.bfloat16 (6, 8)",
        ),
        (
            "packed['weight_packed'] = packed['weight_packed'][:, :1]",
            "unpack",
            "returned a weight of shape [6, 4], the layer has [6, 8]",
        ),
    ],
)
def test_a_pack_that_lies_names_the_plugin_and_the_layer(
    plugins: PluginFolder, layer: Layer, lie: str, hook: str, problem: str
) -> None:
    method = odd(plugins, PACKS.format(lie))
    quantized = method.quantize_layer(layer, None, method.config({}))
    with pytest.raises(HookError) as caught:
        method.pack_exactly(quantized, method.config({}))
    assert str(caught.value).startswith(WHERE.format(hook=hook) + problem)


def test_a_zero_may_lose_its_sign_when_it_is_packed(plugins: PluginFolder, layer: Layer) -> None:
    """Integer codes know one zero; the toy's dequantized weights have both."""
    method = toy(plugins)
    layer.weight[0, :2] = torch.tensor([-1e-9, 1e-9])
    quantized = method.quantize_layer(layer, None, method.config({}))
    assert quantized.dequantized[0, :2].signbit().tolist() == [True, False]
    assert method.pack_exactly(quantized, method.config({}))


def test_unpack_is_told_of_the_layer(plugins: PluginFolder, layer: Layer) -> None:
    body = (
        "@hookimpl\ndef unpack(tensors, layer):\n"
        f"    assert (layer.name, layer.shape, layer.kind) == ({NAME!r}, (6, 8), 'linear')\n"
        "    assert layer.dtype is torch.bfloat16\n"
        "    return toy.unpack(tensors)\n"
    )
    method = odd(plugins, body)
    method.pack_exactly(method.quantize_layer(layer, None, method.config({})), method.config({}))


BACK = LayerSpec(NAME, (2, 3), torch.float32)


def test_a_weight_is_turned_back_by_the_hook_alone(plugins: PluginFolder) -> None:
    weight = torch.arange(6.0).reshape(2, 3)
    assert toy(plugins).original_basis(BACK, weight, toy(plugins).config({})) is weight
    method = odd(plugins, "@hookimpl\ndef original_basis(weight): return weight.flip(1)\n")
    assert torch.equal(method.original_basis(BACK, weight, method.config({})), weight.flip(1))


def test_a_weight_that_is_turned_back_keeps_its_shape(plugins: PluginFolder) -> None:
    method = odd(plugins, "@hookimpl\ndef original_basis(weight): return weight.T\n")
    with pytest.raises(HookError, match=r"hook original_basis, .*: returned a weight of shape \[3, 2\], the layer has"):
        method.original_basis(BACK, torch.ones(2, 3), method.config({}))


class NoModel:
    """What `prepare` sees of a model of one tensor."""

    layers: ClassVar[dict[str, LayerSpec]] = {}
    tensors: ClassVar[dict[str, tuple[tuple[int, ...], torch.dtype]]] = {"norm.weight": ((2,), torch.bfloat16)}

    def read(self, *names: str) -> dict[str, Tensor]:
        return {name: torch.ones(2).bfloat16() for name in names}

    def blocks(self) -> Iterator[AbstractContextManager[Block]]:
        return iter(())


PREPARE = "@hookimpl\ndef prepare(model, batches, config, seed):\n    {}\n"


def prepare(method: Method, seed: int = 0) -> Prepared:
    return method.prepare(NoModel(), NoBatches(), method.config({}), seed)


@pytest.mark.parametrize("body", ["return None", "return Prepared()"])
def test_a_method_need_not_prepare_anything(plugins: PluginFolder, body: str) -> None:
    assert prepare(odd(plugins, PREPARE.format(body))) == prepare(toy(plugins)) == Prepared()


def test_what_is_prepared_is_what_the_hook_decides(plugins: PluginFolder) -> None:
    body = (
        "return Prepared({'*.q_proj': {'clip': 0.5}}, "
        "{name: tensor + seed for name, tensor in model.read('norm.weight').items()}, {'rotated': True})"
    )
    found = prepare(odd(plugins, PREPARE.format(body)), seed=2)
    assert found.overrides == {"*.q_proj": {"clip": 0.5}}
    assert found.tensors["norm.weight"].tolist() == [3, 3]
    assert found.config == {"rotated": True}


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("{}", "must return Prepared or None, not a value of type dict"),
        ("Prepared(tensors={'a': 1})", "must return a dict of tensors, but 'a' is a value of type int"),
        (
            "Prepared(tensors={'a': torch.ones(2)})",
            "replaces 'a', which is no tensor of the checkpoint",
        ),
        (
            "Prepared(tensors={'norm.weight': torch.ones(2)})",
            "replaces norm.weight by torch.float32 (2,), it is torch.bfloat16 (2,)",
        ),
        (
            "Prepared(tensors={'norm.weight': torch.ones(3).bfloat16()})",
            "replaces norm.weight by torch.bfloat16 (3,), it is torch.bfloat16 (2,)",
        ),
        ("Prepared(config={'a': {1}})", "returned what JSON cannot hold: Object of type set is not JSON serializable"),
        (
            "Prepared({'*': {'clip': float('nan')}})",
            "returned what JSON cannot hold: Out of range float values are not JSON compliant",
        ),
    ],
)
def test_preparing_that_breaks_the_contract(plugins: PluginFolder, value: str, problem: str) -> None:
    method = odd(plugins, PREPARE.format(f"return {value}"))
    with pytest.raises(HookError) as caught:
        prepare(method)
    assert str(caught.value).startswith(f"method odd (hyocr-plugin-odd 0.0.1), hook prepare: {problem}")


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
