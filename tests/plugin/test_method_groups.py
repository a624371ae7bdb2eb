"""Layers that share an input, quantized together or one by one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from hyocr_core.contract.types import Layer
from hyocr_core.errors import HookError
from tests.plugin.odd import GROUP, RESULT, odd, pair, toy

if TYPE_CHECKING:
    from tests.conftest import PluginFolder


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
