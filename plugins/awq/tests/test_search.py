"""The search against brute force: every candidate's outputs computed over all tokens in fp64."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from hyocr_plugin_awq.columns import smoothed_errors
from hyocr_plugin_awq.config import AwqConfig
from hyocr_plugin_awq.inputs import collect_inputs
from hyocr_plugin_awq.scales import candidates
from hyocr_plugin_awq.search import FINALISTS, SAMPLED, best_candidate, likely_best, linear_loss, module_loss
from torch import Tensor

from hyocr_core import Batch, Block, Layer, Smoothing, Stats
from hyocr_core.kit import join_columns, settle_hessians, values_of


def slow_round(weight: Tensor, bits: int, size: int, sym: bool, dtype: torch.dtype) -> Tensor:
    """Round (N, K) fp64 to nearest, group by group, on a grid whose scales are rounded to `dtype`."""
    top = 2**bits - 1
    result = torch.empty_like(weight)
    for start in range(0, weight.shape[1], size):
        group = weight[:, start : start + size]
        low, high = group.amin(1, keepdim=True).clamp(max=0), group.amax(1, keepdim=True).clamp(min=0)
        if sym:
            high = torch.maximum(-low, high)
            low = -high
        step = ((high - low) / top).to(dtype).double()
        zero = torch.full_like(step, 2 ** (bits - 1)) if sym else torch.clamp(torch.round(-low / step), 0, top)
        # In fp32, since the largest weight of a symmetric group lies just between two codes.
        nearest = torch.round(group.float() / step.float()).double()
        values = (torch.clamp(nearest + zero, 0, top) - zero) * step
        result[:, start : start + size] = values.to(dtype).double()
    return result


def correlated(tokens: int, inputs: int, seed: int = 0) -> Tensor:
    """Inputs (tokens, K) with correlated channels, every eighth of them an outlier."""
    gen = torch.Generator().manual_seed(seed)
    x = torch.randn(tokens, inputs // 4, generator=gen) @ torch.randn(inputs // 4, inputs, generator=gen)
    x += 0.3 * torch.randn(tokens, inputs, generator=gen)
    x[:, ::8] *= 6
    return x


def inputs_of(x: Tensor) -> Stats:
    return {"hessian": (2 / len(x) * x.double().T @ x.double()).float(), "magnitudes": x.abs().mean(0)}


STORED: tuple[dict[str, Any], ...] = ({}, {"zero_point": False}, {"bits": 8})
OPTIONS = [
    {"group_size": group_size, "duo_scaling": duo, **stored}
    for group_size, duo, stored in itertools.product((32, 64, -1), (True, False), STORED)
]


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_linear_loss_is_the_error_of_the_outputs_over_all_tokens(
    options: dict[str, Any], dtype: torch.dtype
) -> None:
    config = AwqConfig(n_grid=5, **options)
    x, size = correlated(300, 64), 64 if config.group_size == -1 else config.group_size
    gen = torch.Generator().manual_seed(3)
    weight = (0.05 * torch.randn(40, 64, generator=gen)).to(dtype)
    columns, read = join_columns([Layer("l", weight)]), inputs_of(x)
    found = candidates(read["magnitudes"], columns, torch.arange(64), 64, config)
    loss, true = linear_loss(read["hessian"]), []
    for item in found:
        folded = (weight.float() * item.scales).to(dtype).double()
        quantized = slow_round(folded, config.bits, size, config.sym, dtype) / item.scales.double()
        true.append((x.double() @ (quantized - weight.double()).T).square().sum().item() * 2 / len(x))
    losses = [loss(smoothed_errors(columns, item.scales, dtype, config)) for item in found]
    assert losses == pytest.approx(true, rel=0.01)
    best = best_candidate(found, columns, torch.arange(64), dtype, loss, config)
    index = next(index for index, item in enumerate(found) if item is best)
    assert true[index] == pytest.approx(min(true), rel=0.01)


@pytest.mark.parametrize("channels", [64, 24, 1])
def test_ugly_numbers_of_outputs_and_pieces_change_nothing(channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
    gen = torch.Generator().manual_seed(3)
    columns, scales = torch.randn(96, channels, generator=gen), torch.rand(96, generator=gen) + 0.5
    config = AwqConfig(group_size=32)
    whole = smoothed_errors(columns, scales, torch.float32, config)
    monkeypatch.setattr("hyocr_plugin_awq.columns.PIECE", 32 * 5)
    assert torch.equal(smoothed_errors(columns, scales, torch.float32, config), whole)
    exact = slow_round((columns * scales[:, None]).T.double(), 4, 32, False, torch.float32).T / scales[:, None]
    assert (whole - (exact - columns)).abs().max() < 0.01 * exact.abs().max()


def test_candidates_with_which_weights_overflow_are_never_chosen() -> None:
    config = AwqConfig(group_size=32, n_grid=2, duo_scaling=False)
    columns = torch.full((32, 8), 60000.0)
    columns[::2] = 1.0
    magnitudes = torch.ones(32)
    magnitudes[1::2] = 1e4
    found = candidates(magnitudes, columns, torch.arange(32), 32, config)
    loss = linear_loss(torch.eye(32))
    assert not torch.isfinite(smoothed_errors(columns, found[-1].scales, torch.float16, config)).all()
    assert best_candidate(found, columns, torch.arange(32), torch.float16, loss, config).ratio is None


@pytest.mark.parametrize("zero_point", [True, False])
def test_what_some_outputs_find_likely_holds_the_best_by_all(zero_point: bool) -> None:
    config = AwqConfig(group_size=32, zero_point=zero_point)
    read, channels = inputs_of(correlated(400, 64)), torch.arange(64)
    columns = 0.05 * torch.randn(64, 3 * SAMPLED + 5, generator=torch.Generator().manual_seed(4))
    found = candidates(read["magnitudes"], columns, channels, 64, config)
    loss = linear_loss(read["hessian"])
    likely = likely_best(found, columns, channels, torch.bfloat16, loss, config)
    assert len(likely) == FINALISTS
    assert [item for item in found if item in likely] == likely
    best = best_candidate(found, columns, channels, torch.bfloat16, loss, config)
    assert best_candidate(likely, columns, channels, torch.bfloat16, loss, config) is best
    assert likely_best(found, columns[:, : 2 * SAMPLED - 1], channels, torch.bfloat16, loss, config) == found


def test_candidates_with_which_sampled_weights_overflow_are_likely_last() -> None:
    config = AwqConfig(group_size=32, n_grid=6)
    columns, magnitudes = torch.full((32, 2 * SAMPLED), 60000.0), torch.ones(32)
    columns[::2], magnitudes[1::2] = 1.0, 1e4
    found, channels = candidates(magnitudes, columns, torch.arange(32), 32, config), torch.arange(32)
    likely = likely_best(found, columns, channels, torch.float16, linear_loss(torch.eye(32)), config)
    assert likely[0].ratio is None
    assert found[-1] not in likely


def qkv(block: Block) -> tuple[Smoothing, Tensor, Tensor]:
    smoothing = block.smoothing[0]
    columns = join_columns([Layer(name, block.layers[name].weight) for name in smoothing.targets])
    return smoothing, columns, torch.linspace(0.5, 2, len(columns))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_module_loss_is_the_error_of_the_module_over_all_samples(
    block_of: Callable[..., Block], batches_of: Callable[..., list[Batch]], dtype: torch.dtype
) -> None:
    block, batches = block_of(dtype), batches_of(dtype)
    smoothing, columns, scales = qkv(block)
    errors = smoothed_errors(columns, scales, dtype, AwqConfig(group_size=32))
    found = module_loss(block, batches, smoothing, columns)(errors)
    changed = block_of(torch.float32)
    with torch.no_grad():
        for parameter, rounded in zip(changed.module.parameters(), block.module.parameters(), strict=True):
            parameter.copy_(rounded)
        parts = torch.split(errors.float(), [len(block.layers[name].weight) for name in smoothing.targets], 1)
        exact = [attend(changed, batch) for batch in batches]
        for name, part in zip(smoothing.targets, parts, strict=True):
            changed.layers[name].weight += part.T
        true = sum((attend(changed, b) - y).square().sum().item() for b, y in zip(batches, exact, strict=True))
    assert found == pytest.approx(true, rel=0.001 if dtype == torch.float32 else 0.1)


def test_the_module_loss_counts_each_token_with_its_weight(block: Block, batches: list[Batch]) -> None:
    smoothing, columns, scales = qkv(block)
    errors = smoothed_errors(columns, scales, torch.float32, AwqConfig(group_size=32))
    weights = [torch.rand(batch.hidden_states.shape[1]) for batch in batches]
    weighted = [replace(batch, weights=of_tokens) for batch, of_tokens in zip(batches, weights, strict=True)]
    found = module_loss(block, weighted, smoothing, columns)(errors)
    exact = [attend(block, batch).detach() for batch in batches]
    parts = torch.split(errors.float(), [len(block.layers[name].weight) for name in smoothing.targets], 1)
    with torch.no_grad():
        for name, part in zip(smoothing.targets, parts, strict=True):
            block.layers[name].weight += part.T
        changes = [attend(block, batch) - y for batch, y in zip(batches, exact, strict=True)]
    pairs = zip(changes, weights, strict=True)
    assert found == pytest.approx(sum((w @ change[0].square().sum(1)).item() for change, w in pairs), rel=0.001)


def test_inputs_are_sums_over_weighted_tokens(block: Block, batches: list[Batch]) -> None:
    weights = [torch.tensor([0.0, 0.5, 2.5])[torch.randint(3, (batch.hidden_states.shape[1],))] for batch in batches]
    weighted = [replace(batch, weights=of_tokens) for batch, of_tokens in zip(batches, weights, strict=True)]
    collected = collect_inputs(block, weighted)
    stats = values_of(collected)
    settle_hessians(stats)
    assert {stat.merge for own in collected.values() for stat in own.values()} == {"sum"}
    assert len({id(own) for own in stats.values()}) == len(block.groups)
    read = stats[block.smoothing[0].targets[0]]
    normed = [block.module.get_submodule("input_layernorm")(batch.hidden_states)[0] for batch in batches]
    x, factors = torch.cat(normed).detach().double(), torch.cat(weights).double()
    expected = 2 / len(x) * x.T @ (factors[:, None] * x)
    assert (read["hessian"] - expected).abs().max() < 1e-5 * expected.abs().max()
    assert read["magnitudes"].tolist() == pytest.approx((factors @ x.abs()).tolist(), rel=1e-4)
    assert read["tokens"] == len(x)


def attend(block: Block, batch: Batch) -> Tensor:
    """The attention's output for one sample, from the parts of the block."""
    normed = block.module.get_submodule("input_layernorm")(batch.hidden_states.float())
    output: Tensor = block.module.get_submodule("self_attn")(normed, position=batch.context["position"].float())[0]
    return output


def test_the_module_loss_leaves_the_block_alone(block: Block, batches: list[Batch]) -> None:
    smoothing, columns, scales = qkv(block)
    before = {name: value.clone() for name, value in block.module.state_dict().items()}
    loss = module_loss(block, batches, smoothing, columns)
    assert loss(torch.zeros(columns.shape, dtype=torch.bfloat16)) == 0
    assert loss(smoothed_errors(columns, scales, torch.float32, AwqConfig(group_size=32))) > 0
    assert all(torch.equal(value, before[name]) for name, value in block.module.state_dict().items())
    assert not smoothing.inspected._forward_hooks


def test_both_searches_agree_where_one_channel_stands_out(block: Block, batches: list[Batch]) -> None:
    smoothing, columns, _ = qkv(block)
    config = AwqConfig(group_size=64, n_grid=2, duo_scaling=False)
    normed = [block.module.get_submodule("input_layernorm")(b.hidden_states)[0] for b in batches]
    read = inputs_of(torch.cat(normed).detach())
    found = candidates(read["magnitudes"], columns, smoothing.channels, 64, config)
    losses = (linear_loss(read["hessian"]), module_loss(block, batches, smoothing, columns))
    chosen = [best_candidate(found, columns, smoothing.channels, torch.float32, loss, config) for loss in losses]
    assert chosen[0] is chosen[1]
    assert chosen[0].ratio is not None
