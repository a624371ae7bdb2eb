"""The candidates against the paper's formula, one channel after the other."""

from __future__ import annotations

import pytest
import torch
from hyocr_plugin_awq.config import AwqConfig
from hyocr_plugin_awq.scales import SMALLEST, candidates, weight_magnitudes
from torch import Tensor


def problem(inputs: int = 24, outputs: int = 10) -> tuple[Tensor, Tensor]:
    gen = torch.Generator().manual_seed(inputs)
    return torch.rand(inputs, generator=gen) * 3 + 0.1, torch.randn(inputs, outputs, generator=gen)


def literal(x: list[float], w: list[float], ratio: float, duo: bool) -> list[float]:
    """One set of scales as AutoAWQ computes them."""
    scales = [a**ratio / (b ** (1 - ratio) if duo else 1) for a, b in zip(x, w, strict=True)]
    middle = (max(scales) * min(scales)) ** 0.5
    return [s / middle for s in scales]


@pytest.mark.parametrize("duo", [True, False])
def test_scales_are_those_of_the_paper(duo: bool) -> None:
    magnitudes, columns = problem()
    relative = columns.abs().view(3, 8, 10) / columns.abs().view(3, 8, 10).amax(1, keepdim=True)
    weights = relative.mean(2).flatten().tolist()
    config = AwqConfig(n_grid=4, duo_scaling=duo, group_size=-1)
    # The options know no groups of 8; the formula is the same for any.
    config = config.model_copy(update={"group_size": 8})
    found = candidates(magnitudes, columns, torch.arange(24), 24, config)
    assert [item.ratio for item in found] == [None, *([0.0] if duo else []), 0.25, 0.5, 0.75, 1.0]
    assert found[0].scales.tolist() == [1.0] * 24
    for item in found[1:]:
        assert item.ratio is not None
        assert item.scales.tolist() == pytest.approx(literal(magnitudes.tolist(), weights, item.ratio, duo), rel=1e-4)


def test_channels_that_share_a_source_get_their_average() -> None:
    magnitudes, columns = problem(12)
    channels = torch.tensor([0, 1, 2, 0, 1, 2, 4, 5, 4, 5, 4, 5])
    config = AwqConfig(n_grid=1, duo_scaling=False, group_size=-1)
    found = candidates(magnitudes, columns, channels, 7, config)[-1].scales
    x = magnitudes.tolist()
    mean = {
        0: (x[0] + x[3]) / 2,
        1: (x[1] + x[4]) / 2,
        2: (x[2] + x[5]) / 2,
        4: (x[6] + x[8] + x[10]) / 3,
        5: (x[7] + x[9] + x[11]) / 3,
    }
    for source, value in mean.items():
        assert (found[source] / found[0]).item() == pytest.approx(value / mean[0], rel=1e-5)
    # What feeds nothing (3 and 6) need not change.
    assert torch.isfinite(found).all()


def test_channels_that_nothing_reached_get_bounded_scales() -> None:
    magnitudes, columns = problem()
    magnitudes[3] = 0
    columns[5] = 0
    for duo in (True, False):
        for item in candidates(magnitudes, columns, torch.arange(24), 24, AwqConfig(duo_scaling=duo, group_size=-1)):
            assert torch.isfinite(item.scales).all()
            assert item.scales.min() >= SMALLEST
            assert item.scales.max() <= 1 / SMALLEST


def test_inputs_and_weights_that_are_all_zero_give_no_nan() -> None:
    found = candidates(torch.zeros(8), torch.zeros(8, 4), torch.arange(8), 8, AwqConfig(group_size=-1))
    assert all(item.scales.tolist() == [1.0] * 8 for item in found)


def test_weight_magnitudes_are_relative_to_their_group() -> None:
    columns = torch.tensor([[1.0, -8.0], [-4.0, 2.0], [0.5, 0.0], [-0.25, 0.0]])
    assert weight_magnitudes(columns, 2).tolist() == [(0.25 + 1) / 2, (1 + 0.25) / 2, 0.5, 0.25]
    assert weight_magnitudes(columns, -1).tolist() == [(0.25 + 1) / 2, (1 + 0.25) / 2, 0.0625, 0.03125]
