"""The stand-in is as strict as a GPU: it refuses what CUDA refuses, and counts what makes the host wait there."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor, nn

from hyocr_core.testing.stand_in import NAME, StandIn, stand_in


@pytest.fixture
def device() -> Iterator[StandIn]:
    with stand_in() as made:
        yield made


def test_it_computes_what_the_cpu_computes(device: StandIn) -> None:
    left, right = torch.randn(3, 4), torch.randn(4, 5)
    found = left.to(NAME) @ right.to(NAME)
    assert found.device.type == NAME
    assert torch.equal(found.cpu(), left @ right)


def test_views_and_results_written_into_a_tensor_are_that_tensor(device: StandIn) -> None:
    steps = torch.zeros(2, 3, device=NAME)
    torch.div(torch.full((3,), 5.0, device=NAME), 2, out=steps[1]).round_()
    steps.diagonal().add_(1)
    assert steps.tolist() == [[1, 0, 0], [2, 3, 2]]


@pytest.mark.parametrize(
    "mix",
    [
        lambda ours: ours + torch.ones(3, 4),
        lambda ours: ours @ torch.ones(4, 2),
        lambda ours: ours[torch.tensor([0, 1])],
        lambda ours: torch.cat([ours, torch.ones(3, 4)]),
        lambda ours: nn.functional.scaled_dot_product_attention(ours[None], torch.ones(1, 3, 4), ours[None]),
        lambda ours: ours.numpy(),
    ],
)
def test_tensors_of_two_devices_do_not_meet(device: StandIn, mix: Callable[[Tensor], object]) -> None:
    ours = torch.ones(3, 4, device=NAME)
    with pytest.raises((RuntimeError, TypeError), match=r"one device|numpy"):
        mix(ours)


@pytest.mark.parametrize(
    ("ask", "waits"),
    [
        (lambda ours: ours.sum().item(), 1),
        (lambda ours: bool((ours > 0).any()), 1),
        (lambda ours: torch.equal(ours, ours), 1),
        (lambda ours: ours.cpu(), 1),
        (lambda ours: ours.to("cpu", non_blocking=True), 0),
        (lambda ours: ours.copy_(torch.ones(3, 4)), 1),
        (lambda ours: ours[ours > 0], 1),
        (lambda ours: ours[:, [0, 2]], 1),
        (lambda ours: ours.masked_fill_(ours > 0, 1), 0),
        (lambda ours: ours.nonzero(), 1),
        (lambda ours: ours.tolist(), 1),
        (lambda ours: (ours * 2 + 1).softmax(0), 0),
        (lambda ours: ours.to("meta"), 0),
    ],
)
def test_it_counts_what_the_host_waits_for(device: StandIn, ask: Callable[[Tensor], object], waits: int) -> None:
    ours = torch.ones(3, 4, device=NAME)
    ask(ours)
    assert device.waits.total() == waits


def test_without_it_there_is_no_such_device() -> None:
    with stand_in():
        ours = torch.ones(2, device=NAME)
    with pytest.raises(RuntimeError, match="after the device was gone"):
        ours + 1
    with pytest.raises(RuntimeError):
        torch.ones(2, device=NAME)
