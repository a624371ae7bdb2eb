"""A loaded method at work on one block, with what it was given and gave; the steps of the contract's tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from hyocr_core.contract.config import MethodConfig
from hyocr_core.contract.types import Batch, Block, Layer, QuantizedLayer, Stats
from hyocr_core.errors import HookError, HyocrError
from hyocr_core.kit.grid import decode, fit_grid, join_columns, round_to_nearest
from hyocr_core.kit.smoothing import exact_output
from hyocr_core.plugin.method import Method


@dataclass(frozen=True)
class Quantized:
    """What a method made of one linear. stats: what its calibration left for it, if any."""

    layer: Layer
    stats: Stats | None
    result: QuantizedLayer
    packed: dict[str, Tensor]


@dataclass(frozen=True)
class Bench:
    """A method with its options."""

    method: Method
    config: MethodConfig

    @property
    def calibrates(self) -> bool:
        return self.method.spec.needs_calibration and self.config.needs_calibration

    def calibrate(self, block: Block, batches: Sequence[Batch]) -> dict[str, Stats] | None:
        """The block's statistics, if these options need any."""
        return self.method.calibrate(block, batches, self.config) if self.calibrates else None

    def quantize(self, block: Block, batches: Sequence[Batch]) -> list[Quantized]:
        """Take a block all the way, as a run does; its linears end up with their dequantized weights."""
        shapes = {name: (linear.out_features, linear.in_features) for name, linear in block.layers.items()}
        self.method.check_layers(shapes, self.config)
        stats = self.calibrate(block, batches)
        return [item for group in block.groups for item in self.quantize_group(block, group, stats)]

    def quantize_group(
        self, block: Block, group: Sequence[str], stats: Mapping[str, Stats] | None
    ) -> Iterator[Quantized]:
        """Quantize linears of a block that share one input."""
        layers = [Layer(name, block.layers[name].weight.detach()) for name in group]
        for layer, result in zip(layers, self.method.quantize_group(layers, stats, self.config), strict=True):
            packed = self.method.pack(result, self.config)
            block.layers[layer.name].weight.data = result.dequantized
            yield Quantized(layer, stats[layer.name] if stats else None, result, packed)

    def unpack_problem(self, item: Quantized, packed: Mapping[str, Tensor]) -> str:
        """How the weight of packed tensors differs from the layer's `dequantized`; empty when it does not."""
        found = self.method.unpack(packed, self.config, item.layer.name)
        # Adding 0 makes -0 to 0: integer codes know only one of them, and no output depends on it.
        return bits_differ(found + 0, item.result.dequantized + 0)


def block_error(exact: Sequence[Tensor], block: Block, batches: Sequence[Batch]) -> float:
    """Norm of the change in what a block adds to its inputs, over the norm of what it added before, `exact`."""
    found = [exact_output(block, batch) for batch in batches]
    change = sum((now - before).double().square().sum().item() for now, before in zip(found, exact, strict=True))
    whole = sum(before.double().square().sum().item() for before in exact)
    return float((change / whole) ** 0.5)


def rounded_to_nearest(weight: Tensor, bits: int, group_size: int) -> Tensor:
    """A weight (N, K) as plain rounding leaves it: symmetric, full range; -1 is one group per output."""
    columns = join_columns([Layer("weight", weight)])
    uneven = group_size != -1 and len(columns) % group_size
    grid = fit_grid(columns, weight.dtype, bits=bits, group_size=-1 if uneven else group_size, sym=True, mse=False)
    return decode(round_to_nearest(columns, grid), grid).T.contiguous()


def bits_differ(left: Tensor, right: Tensor) -> str:
    """How two tensors differ, bit for bit; empty when they do not."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return f"{left.dtype} {tuple(left.shape)} instead of {right.dtype} {tuple(right.shape)}"
    size = max(1, left.element_size())
    pairs = (tensor.detach().contiguous().reshape(-1).view(torch.uint8).view(-1, size) for tensor in (left, right))
    first, second = pairs
    places = (first != second).any(1).nonzero().flatten().tolist()
    if not places:
        return ""
    where = [int(index) for index in torch.unravel_index(torch.tensor(places[0]), left.shape)]
    now, then = (tensor.reshape(-1)[places[0]].item() for tensor in (left, right))
    return f"{len(places)} of {left.numel()} values differ, the first at {where}: {now:g} instead of {then:g}"


def tensors_in(value: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor in nested mappings, lists and tuples, by its path."""
    if isinstance(value, Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, part in value.items():
            yield from tensors_in(part, f"{name}.{key}".lstrip("."))
    elif isinstance(value, list | tuple):
        for index, part in enumerate(value):
            yield from tensors_in(part, f"{name}[{index}]")


@contextmanager
def left_alone(hook: str, **given: Any) -> Iterator[None]:
    """Fail when a hook writes into what it was given."""
    tensors = dict(tensors_in(given))
    copies = {name: tensor.detach().clone() for name, tensor in tensors.items()}
    yield
    for name, tensor in tensors.items():
        problem = bits_differ(tensor, copies[name])
        require(not problem, f"hook {hook} wrote into {name}, which it was given: {problem}; work on a copy")


@contextmanager
def refusals_allowed() -> Iterator[None]:
    """Let the method refuse: any HyocrError but that of a hook which raised something else or broke its promise."""
    try:
        yield
    except HookError:
        raise
    except HyocrError as error:
        require("\n" not in str(error), f"a refusal must be one line: {error}")


@contextmanager
def failing_in_one_line() -> Iterator[None]:
    """Show an error that is meant for the user as the user sees it; the cause of a HookError stays below it."""
    try:
        yield
    except HookError:
        raise
    except HyocrError as error:
        raise pytest.fail.Exception(str(error), pytrace=False) from None


def require(held: bool, problem: str) -> None:
    """Fail the test with `problem`, which names what is wrong; the kit's own frames would not help."""
    if not held:
        pytest.fail(problem, pytrace=False)
