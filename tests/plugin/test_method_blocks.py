"""`calibrate` and `settle`: what they return, and what of the block they must leave alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor, nn

from hyocr_core.contract.types import Batch, Block, Stats
from hyocr_core.errors import HookError, MethodError
from hyocr_core.plugin.guards import PromiseBroken, output_kept
from hyocr_core.plugin.registry import Method
from tests.plugin.odd import NoBatches, odd, toy

if TYPE_CHECKING:
    from tests.conftest import PluginFolder


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


def test_a_long_sample_is_tried_by_its_beginning() -> None:
    """Positions alone can be cut with it; what a vision block takes beside them cannot."""
    layer, seen = nn.Linear(2, 2), []

    def run(batch: Batch) -> Tensor:
        seen.append((batch.hidden_states.shape[1], *(part.shape[1] for part in batch.context["position_embeddings"])))
        output: Tensor = layer(batch.hidden_states) + batch.context["position_embeddings"][0]
        return output

    block = Block(3, "model.layers.3", nn.ModuleDict({"a": layer}), {"a": layer}, (("a",),), run)
    places, tokens = torch.ones(1, 300, 2), torch.ones(1, 300, 2)
    for context, length in (({}, 128), ({"grid": torch.ones(1, 3)}, 300)):
        batch = Batch("page", tokens, {"position_embeddings": (places, places), **context})
        with (
            pytest.raises(PromiseBroken, match="changed the block's output by "),
            output_kept(block, [batch]),
            torch.no_grad(),
        ):
            layer.weight.mul_(5)
        assert seen[-2:] == [(length, length, length)] * 2


def test_a_method_that_rescales_may_change_weights_that_make_up_for_each_other(plugins: PluginFolder) -> None:
    swaps = "a, b = (layer.weight.data for layer in block.layers.values()); kept = a.clone(); "
    body = SETTLE.format(swaps + "a.copy_(b); b.copy_(kept); return stats")
    block = block_of({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    before = [layer.weight.detach().clone() for layer in block.layers.values()]
    settle(odd(plugins, body + RESCALES.format("True")), block, {"a": {}, "b": {}})
    after = [layer.weight.detach() for layer in block.layers.values()]
    assert torch.equal(after[0], before[1])
    assert torch.equal(after[1], before[0])
