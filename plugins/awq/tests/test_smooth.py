"""The whole calibration of a block: what it leaves as it was, what it changes, and what it says of it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hyocr_plugin_awq.config import AwqConfig
from hyocr_plugin_awq.inputs import collect_inputs
from hyocr_plugin_awq.layers import quantize, rounding_error
from hyocr_plugin_awq.smooth import settle
from torch import Tensor, nn

from hyocr_core import Batch, Block, Layer, RunError, Stats
from hyocr_core.kit import settle_hessians, values_of

CONFIG = AwqConfig(group_size=32)


def outputs(block: Block, batches: list[Batch]) -> Tensor:
    with torch.no_grad():
        return torch.cat([block.run(batch)[0] for batch in batches]).double()


def distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def state(block: Block) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in block.module.state_dict().items()}


def calibrate(block: Block, batches: list[Batch], config: AwqConfig) -> dict[str, Stats]:
    """What a run makes of its samples for each layer: gathered, then settled."""
    block = replace(block, configs=dict.fromkeys(block.layers, config))
    return settle(block, batches, values_of(collect_inputs(block, batches)))


def quantize_all(block: Block, stats: dict[str, Stats], config: AwqConfig) -> dict[str, dict[str, float]]:
    """Quantize every layer in place; return their metrics."""
    metrics = {}
    for name, layer in block.layers.items():
        result = quantize(Layer(name, layer.weight.detach()), stats[name], config)
        layer.weight.data = result.dequantized
        metrics[name] = dict(result.metrics)
    return metrics


SEARCHES = [{"search": search, "duo_scaling": duo} for search in ("linear", "module") for duo in (True, False)]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-3), (torch.bfloat16, 2e-2)])
def test_folding_keeps_the_output(
    search: dict[str, Any],
    dtype: torch.dtype,
    bound: float,
    block_of: Callable[..., Block],
    batches_of: Callable[..., list[Batch]],
) -> None:
    block, batches = block_of(dtype), batches_of(dtype)
    before, weights = outputs(block, batches), state(block)
    calibrate(block, batches, AwqConfig(group_size=32, **search))
    assert distance(outputs(block, batches), before) < bound
    changed = {name for name, value in block.module.state_dict().items() if not torch.equal(value, weights[name])}
    assert changed == set(weights), "every smoothing group had something to gain"
    assert {value.dtype for value in block.module.state_dict().values()} == {dtype}


@pytest.mark.parametrize("search", SEARCHES)
def test_statistics_are_those_of_the_folded_layers(search: dict[str, Any], block: Block, batches: list[Batch]) -> None:
    stats = calibrate(block, batches, AwqConfig(group_size=32, **search))
    assert stats.keys() == block.layers.keys()
    fresh = values_of(collect_inputs(block, batches))
    settle_hessians(fresh)
    for name, read in fresh.items():
        assert distance(stats[name]["hessian"], read["hessian"]) < 1e-4


def test_layers_with_one_input_share_one_hessian(block: Block, batches: list[Batch]) -> None:
    stats = calibrate(block, batches, CONFIG)
    assert len({id(item["hessian"]) for item in stats.values()}) == len(block.groups) == 4


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("stored", [{}, {"zero_point": False}, {"group_size": -1}, {"mse_range": False}])
def test_it_beats_rounding_to_nearest(
    search: dict[str, Any], stored: dict[str, Any], block_of: Callable[..., Block], batches: list[Batch]
) -> None:
    config = AwqConfig(**{"group_size": 32, **search, **stored})
    expected = outputs(block_of(), batches)
    nearest = block_of()
    for layer in nearest.layers.values():
        stats: Stats = {"hessian": torch.eye(layer.in_features)}
        plain = config.model_copy(update={"mse_range": False})
        layer.weight.data = quantize(Layer("l", layer.weight.detach()), stats, plain).dequantized
    smoothed = block_of()
    metrics = quantize_all(smoothed, calibrate(smoothed, batches, config), config)
    assert distance(outputs(smoothed, batches), expected) < 0.85 * distance(outputs(nearest, batches), expected)
    gains = [found["output_error"] / found["output_error_rtn"] for found in metrics.values()]
    assert max(gains) < 1.1
    assert sum(gains) / len(gains) < 0.85


def test_metrics_are_the_errors_of_the_outputs_of_the_original_layer(
    block_of: Callable[..., Block], batches: list[Batch]
) -> None:
    """Up is scaled down for down_proj; its error counts as if it were not."""
    original, block = block_of(), block_of()
    stats = calibrate(block, batches, CONFIG)
    name, source = "model.layers.0.mlp.up_proj", "model.layers.0.post_attention_layernorm"
    x = torch.cat([mlp_input(original, batch) for batch in batches]).double()
    weight = original.layers[name].weight.detach().double()
    result = quantize(Layer(name, block.layers[name].weight.detach()), stats[name], CONFIG)
    columns = original.module.get_submodule(source.removeprefix("model.layers.0.")).get_parameter("weight")
    folded = block.module.get_submodule("post_attention_layernorm").get_parameter("weight")
    scales = (columns / folded).double()
    rows = stats[name]["rows"].double()
    back = result.dequantized.double() / scales * rows[:, None]
    error = ((x @ (back - weight).T).norm() / (x @ weight.T).norm()).item()
    assert result.metrics["output_error"] == pytest.approx(error, rel=0.02)
    nearest = rounding_error(Layer(name, original.layers[name].weight.detach()), 2 / len(x) * (x.T @ x).float(), CONFIG)
    assert result.metrics["output_error_rtn"] == pytest.approx(nearest, rel=1e-3)
    assert 0 <= result.metrics["ratio"] <= 1


def mlp_input(block: Block, batch: Batch) -> Tensor:
    seen: list[Tensor] = []
    handle = block.module.get_submodule("mlp").register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    with torch.no_grad():
        block.run(batch)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize("search", ["linear", "module"])
def test_the_same_input_gives_the_same_bytes_and_is_left_alone(
    search: str, block_of: Callable[..., Block], batches: list[Batch]
) -> None:
    config = AwqConfig.model_validate({"group_size": 32, "search": search})
    kept = [batch.hidden_states.clone() for batch in batches]
    first, second = block_of(), block_of()
    stats = [calibrate(block, batches, config) for block in (first, second)]
    assert all(torch.equal(value, state(second)[name]) for name, value in state(first).items())
    for name in stats[0]:
        assert all(torch.equal(value, stats[1][name][key]) for key, value in stats[0][name].items())
    assert all(torch.equal(batch.hidden_states, kept[index]) for index, batch in enumerate(batches))


def test_each_layer_is_settled_by_its_own_options(block_of: Callable[..., Block], batches: list[Batch]) -> None:
    """Scales of a smoothing group are searched, and rounding is measured, as the options of its layers say."""
    eight = CONFIG.model_copy(update={"bits": 8})
    mixed, four, fine = block_of(), block_of(), block_of()
    configs = {name: eight if "mlp" in name else CONFIG for name in mixed.layers}
    collected = values_of(collect_inputs(mixed, batches))
    stats = settle(replace(mixed, configs=configs), batches, collected)
    found = {config.bits: calibrate(block, batches, config) for block, config in ((four, CONFIG), (fine, eight))}
    for name, own in stats.items():
        if "self_attn" in name:
            assert torch.equal(own["hessian"], found[4][name]["hessian"])
        assert own["output_error_rtn"] == found[configs[name].bits][name]["output_error_rtn"]


def test_hooks_are_gone_afterwards(block: Block, batches: list[Batch]) -> None:
    calibrate(block, batches, AwqConfig(group_size=32, search="module"))
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in block.module.modules())


def test_a_block_without_smoothing_groups_stays_as_it_is(block: Block, batches: list[Batch]) -> None:
    bare = Block(0, block.name, block.module, block.layers, block.groups, block.run)
    before = state(block)
    stats = calibrate(bare, batches, CONFIG)
    assert all(torch.equal(value, before[name]) for name, value in block.module.state_dict().items())
    metrics = quantize_all(bare, stats, CONFIG)
    assert all("ratio" not in found for found in metrics.values())
    assert metrics["model.layers.0.mlp.up_proj"]["output_error"] > 0


def test_scales_that_overflow_name_the_layer(block_of: Callable[..., Block]) -> None:
    block, batches = block_of(torch.float16), []
    # A channel that is never large but whose norm nearly is: a search that rounds wants it smaller still.
    with torch.no_grad():
        norm = block.module.get_submodule("input_layernorm").get_parameter("weight")
        norm.fill_(1.0)
        norm[0] = 60000
    gen = torch.Generator().manual_seed(0)
    hidden = torch.randn(1, 50, 64, generator=gen)
    hidden[..., 0] = 1e-6
    batches = [Batch("page", hidden.half(), {"position": torch.zeros(1, 1, 50, 32, dtype=torch.float16)})]
    with pytest.raises(RunError, match=r"model\.layers\.0\.input_layernorm: its weights overflow torch\.float16"):
        calibrate(block, batches, AwqConfig(group_size=32, rounding="nearest"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_no_numbers_name_the_layer_and_the_sample(
    value: float, block: Block, batches: list[Batch]
) -> None:
    batches[1].hidden_states[0, 4, 9] = value
    with pytest.raises(RunError, match=r"model\.layers\.0\.self_attn\.q_proj: its input is NaN .* sample page 1"):
        calibrate(block, batches, CONFIG)


def test_inputs_whose_squares_overflow_name_the_layer(batches: list[Batch]) -> None:
    layer = nn.Linear(64, 8, bias=False)
    block = Block(0, "b", layer, {"b.l": layer}, (("b.l",),), lambda batch: layer(batch.hidden_states * 1e30))
    with pytest.raises(RunError, match=r"b\.l: its inputs are so large"):
        calibrate(block, batches, CONFIG)


def test_layers_that_no_token_reached_are_named(block: Block) -> None:
    with pytest.raises(RunError, match=r"self_attn\.q_proj: no calibration token reached it"):
        calibrate(block, [], CONFIG)


def chosen(stats: dict[str, Stats]) -> list[float]:
    return [float(own["ratio"]) for own in stats.values() if "ratio" in own]


def test_scales_are_those_that_suit_the_codes_to_come(block_of: Callable[..., Block], batches: list[Batch]) -> None:
    def lost(seed: int, searched: AwqConfig) -> tuple[list[float], float]:
        """The ratios chosen, and the product of the errors that GPTQ's codes make with them."""
        block = block_of(seed=seed)
        stats = calibrate(block, batches, searched)
        ratios = chosen(stats)
        errors = [metrics["output_error"] for metrics in quantize_all(block, stats, CONFIG).values()]
        return ratios, math.prod(errors)

    nearest = CONFIG.model_copy(update={"rounding": "nearest"})
    found = [(lost(seed, CONFIG), lost(seed, nearest)) for seed in range(5)]
    assert all(own[0] != other[0] for own, other in found)
    assert math.prod(own[1] / other[1] for own, other in found) < 0.2


def test_without_a_factor_scales_suit_the_nearest_codes(
    block_of: Callable[..., Block], batches: list[Batch], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = chosen(calibrate(block_of(), batches, CONFIG.model_copy(update={"rounding": "nearest"})))
    monkeypatch.setattr("hyocr_plugin_awq.smooth.solving_factor", lambda _hessian: None)
    assert chosen(calibrate(block_of(), batches, CONFIG)) == expected
