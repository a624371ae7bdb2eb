"""Checks of numbers that run on every tensor of a model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor

from hyocr_core.errors import RunError

if TYPE_CHECKING:
    from hyocr_core.contract.types import Layer

T = TypeVar("T")

WEIGHT_DTYPES = (torch.bfloat16, torch.float16, torch.float32)


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor of any dtype is free of NaN and infinity.

    By its least and largest value, which carry either; on CPU that is ten times as fast as `torch.isfinite`.
    """
    return first_endless([tensor]) is None


def first_endless(tensors: Sequence[Tensor]) -> int | None:
    """Which of these tensors is the first that holds NaN or infinity; the host waits for a device once."""
    flags = {index: _is_finite(tensor) for index, tensor in enumerate(tensors) if _may_be_endless(tensor)}
    return _first_false(list(flags), list(flags.values()))


def _may_be_endless(tensor: Tensor) -> bool:
    # The 4-bit float has no code for NaN or infinity.
    four_bits = tensor.dtype is torch.float4_e2m1fn_x2
    return tensor.dtype.is_floating_point and not four_bits and tensor.numel() > 0


def _is_finite(tensor: Tensor) -> Tensor:
    low, high = torch.aminmax(tensor.float() if tensor.dtype.itemsize == 1 else tensor)
    return torch.isfinite(low) & torch.isfinite(high)


def _first_false(names: Sequence[T], flags: Sequence[Tensor]) -> T | None:
    if not flags:
        return None
    found = torch.stack([flag.to(flags[0].device) for flag in flags]).tolist()
    return next((name for name, good in zip(names, found, strict=True) if not good), None)


class FiniteChecks:
    """Checks of many tensors that a device is asked about once, at the end; on the CPU each is made as it is added."""

    def __init__(self) -> None:
        self._problems: list[str] = []
        self._flags: list[Tensor] = []

    def add(self, tensor: Tensor, problem: str) -> None:
        """problem: what the RunError says if the tensor holds NaN or infinite values."""
        if not _may_be_endless(tensor):
            return
        self._problems.append(problem)
        self._flags.append(_is_finite(tensor))
        if tensor.device.type == "cpu":
            self.answer()

    def answer(self) -> None:
        """Raise RunError for the first tensor added that was not finite."""
        problem = _first_false(self._problems, self._flags)
        self._problems, self._flags = [], []
        if problem is not None:
            raise RunError(problem)


@contextmanager
def finite_checks() -> Iterator[FiniteChecks]:
    """Checks that have all been made when the block is left."""
    checks = FiniteChecks()
    yield checks
    checks.answer()


def check_weights(layers: Sequence[Layer]) -> None:
    """Raise RunError naming a layer whose weight is not finite, or not of the one dtype that a group has to have."""
    with finite_checks() as checks:
        for layer in layers:
            _check_dtype(layer, layers[0].weight.dtype)
            checks.add(layer.weight, f"{layer.name}: its weight holds NaN or infinite values")


def _check_dtype(layer: Layer, due: torch.dtype) -> None:
    dtype = layer.weight.dtype
    if dtype not in WEIGHT_DTYPES or dtype != due:
        raise RunError(
            f"{layer.name}: its weight is {dtype}; bfloat16, float16 or float32 throughout a group is needed"
        )
