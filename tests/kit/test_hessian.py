"""The sums over calibration inputs against fp64, through the core's own observer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from hyocr_core import Batch, Batches, Block, RunError, Stats
from hyocr_core.kit.hessian import add_outer, collect_hessians, settle_hessians
from hyocr_core.kit.statistics import merge, values_of


class TwoLayers(nn.Module):
    """Two linears on one input, then one on their sum."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.first, self.second, self.last = (nn.Linear(size, size, bias=False, dtype=dtype) for _ in range(3))

    def forward(self, states: Tensor) -> Tensor:
        out: Tensor = self.last(self.first(states) + self.second(states))
        return out


def block_of(module: TwoLayers) -> Block:
    layers = {"b.first": module.first, "b.second": module.second, "b.last": module.last}
    return Block(
        0, "b", module, layers, (("b.first", "b.second"), ("b.last",)), lambda batch: module(batch.hidden_states)
    )


class Samples:
    def __init__(self, states: list[Tensor], weights: list[Tensor] | None = None) -> None:
        self.states = states
        self.weights = weights

    def __len__(self) -> int:
        return len(self.states)

    def __iter__(self) -> Iterator[Batch]:
        for index, states in enumerate(self.states):
            yield Batch(f"sample {index}", states, {}, None if self.weights is None else self.weights[index])


def hessians(block: Block, batches: Batches) -> dict[str, Stats]:
    """As a run makes them: gathered, then settled."""
    stats = values_of(collect_hessians(block, batches))
    settle_hessians(stats)
    return stats


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize("size", [24, 256, 300])
def test_hessian_is_the_mean_outer_product_of_all_tokens(size: int, dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    states = [torch.randn(1, tokens, size).to(dtype) for tokens in (5, 1, 33)]
    stats = hessians(block_of(TwoLayers(size, dtype)), Samples(states))
    tokens = torch.cat(states, 1)[0].double()
    expected = 2 / 39 * tokens.T @ tokens
    hessian = stats["b.first"]["hessian"]
    assert set(stats) == {"b.first", "b.second", "b.last"}
    assert stats["b.first"]["tokens"].item() == 39
    assert hessian.dtype == torch.float32
    assert (hessian - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert torch.equal(hessian, hessian.T)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_weighted_hessian_counts_each_token_with_its_weight(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    lengths = (5, 1, 33)
    states = [torch.randn(1, tokens, 300).to(dtype) for tokens in lengths]
    weights = [torch.tensor([0.0, 0.3, 1.7])[torch.randint(3, (tokens,))] for tokens in lengths]
    stats = hessians(block_of(TwoLayers(300, dtype)), Samples(states, weights))
    tokens, factors = torch.cat(states, 1)[0].double(), torch.cat(weights).double()
    expected = 2 / 39 * tokens.T @ (factors[:, None] * tokens)
    assert stats["b.first"]["tokens"].item() == 39
    assert (stats["b.first"]["hessian"] - expected).abs().max() <= 1e-6 * expected.abs().max()


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_beside_it_stands_what_the_full_precision_path_has_in_common_with_it(
    dtype: torch.dtype, weighted: bool
) -> None:
    torch.manual_seed(0)
    module, lengths = TwoLayers(300, dtype), (5, 1, 33)
    states = [torch.randn(1, tokens, 300).to(dtype) for tokens in lengths]
    others = [(each.float() + 0.1 * torch.randn(each.shape)).to(dtype) for each in states]
    weights = [torch.tensor([0.0, 0.3, 1.7])[torch.randint(3, (tokens,))] for tokens in lengths]
    batches = [
        Batch("s", own, {}, weight if weighted else None, other)
        for own, other, weight in zip(states, others, weights, strict=True)
    ]
    whole = block_of(module)
    group = replace(whole, layers={"b.last": module.last}, groups=(("b.last",),), of_group=True)
    stats = hessians(group, batches)["b.last"]
    factors = torch.cat(weights).double() if weighted else torch.ones(39, dtype=torch.float64)
    tokens, paired = (torch.cat(each, 1)[0].double() for each in (states, others))
    expected = 2 / 39 * tokens.T @ (factors[:, None] * (paired - tokens))
    near = 1e-6 if dtype == torch.float32 else 2**-8
    assert (stats["drift"] - expected).abs().max() <= near * expected.abs().max()
    # The input of a block is no layer's: there the full-precision path says nothing of it.
    assert not {"drift", "output_drift"} & hessians(whole, batches)["b.first"].keys()
    # A layer of fewer outputs than inputs has the sum of what they change by.
    narrow = nn.Linear(300, 20, bias=True, dtype=dtype)
    [through] = hessians(replace(group, layers={"b.last": narrow}), batches).values()
    assert "drift" not in through
    shifted = expected @ narrow.weight.detach().double().T
    assert (through["output_drift"] - shifted).abs().max() <= near * shifted.abs().max()


def test_weights_of_one_change_nothing() -> None:
    states = [torch.randn(1, tokens, 300) for tokens in (5, 40)]
    plain = hessians(block := block_of(TwoLayers(300, torch.float32)), Samples(states))
    weighted = hessians(block, Samples(states, [torch.ones(5), torch.ones(40)]))
    assert torch.equal(plain["b.last"]["hessian"], weighted["b.last"]["hessian"])


def test_layers_with_one_input_share_one_object() -> None:
    stats = hessians(block_of(TwoLayers(8, torch.float32)), Samples([torch.randn(1, 4, 8)]))
    assert stats["b.first"] is stats["b.second"]
    assert stats["b.first"] is not stats["b.last"]


def test_what_is_gathered_are_sums_so_that_parts_add_up() -> None:
    block = block_of(TwoLayers(300, torch.bfloat16))
    states = [torch.randn(1, tokens, 300).bfloat16() for tokens in (5, 1, 33)]
    whole = collect_hessians(block, Samples(states))
    assert {stat.merge for own in whole.values() for stat in own.values()} == {"sum"}
    parts = merge(collect_hessians(block, Samples(states[1:])), collect_hessians(block, Samples(states[:1])))
    merged = values_of(parts)
    settle_hessians(merged)
    tokens = torch.cat(states, 1)[0].double()
    expected = 2 / 39 * tokens.T @ tokens
    assert (merged["b.first"]["hessian"] - expected).abs().max() <= 1e-6 * expected.abs().max()
    assert merged["b.first"] is merged["b.second"]


def test_a_sum_that_overflowed_names_the_layer() -> None:
    stats = {"b.last": {"hessian": torch.full((2, 2), float("inf")), "tokens": torch.tensor(3)}}
    with pytest.raises(RunError, match=r"b\.last: its inputs are so large that their squares overflow float32"):
        settle_hessians(stats)


def test_statistics_of_no_token_name_the_layer() -> None:
    with pytest.raises(RunError, match=r"b\.last: no calibration token reached it"):
        settle_hessians({"b.last": {"hessian": torch.zeros(2, 2), "tokens": torch.tensor(0)}})


@pytest.mark.parametrize("precision", ["highest", "high", "medium"])
def test_the_users_matmul_precision_is_restored_and_fp32_inputs_lose_nothing(precision: str) -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        inputs = torch.randn(512, 300, generator=torch.Generator().manual_seed(0))
        total = torch.zeros(300, 300)
        add_outer(total, inputs)
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    exact = (inputs.double().T @ inputs.double()).tril()
    assert (total.tril() - exact).abs().max() < 1e-5 * exact.abs().max()


def test_a_nan_input_names_layer_and_sample() -> None:
    bad = torch.randn(1, 4, 8)
    bad[0, 2, 3] = float("nan")
    with pytest.raises(RunError, match=r"b\.first.*sample 1"):
        collect_hessians(block_of(TwoLayers(8, torch.float32)), Samples([torch.randn(1, 4, 8), bad]))


@pytest.mark.parametrize("states", [[], [torch.randn(1, 0, 8)]])
def test_no_token_at_all_is_an_error(states: list[Tensor]) -> None:
    with pytest.raises(RunError, match=r"b\.first: no calibration token"):
        hessians(block_of(TwoLayers(8, torch.float32)), Samples(states))


def test_nothing_is_computed_of_a_full_precision_path_that_is_the_same() -> None:
    module, states = TwoLayers(300, torch.bfloat16), torch.randn(1, 9, 300).bfloat16()
    group = replace(block_of(module), layers={"b.last": module.last}, groups=(("b.last",),), of_group=True)
    same, equal = (hessians(group, [Batch("s", states, {}, None, other)]) for other in (states, states.clone()))
    assert same["b.last"].keys() == {"hessian", "tokens"}
    assert not equal["b.last"]["drift"].any()
