"""A loaded method at work on one block, with what it was given and gave; the steps of the contract's tests."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest
from torch import Tensor

from hyocr_core.contract.config import MethodConfig
from hyocr_core.contract.types import Batch, Block, Collected, Layer, QuantizedLayer, Stats
from hyocr_core.errors import HookError, HyocrError
from hyocr_core.kit.grid import decode, fit_grid, join_columns, round_to_nearest
from hyocr_core.kit.inputs import observe_inputs
from hyocr_core.kit.smoothing import exact_output
from hyocr_core.kit.statistics import values_of
from hyocr_core.models.dequantized import emulate_inputs
from hyocr_core.models.stages import lone_group
from hyocr_core.plugin.method import Method
from hyocr_core.plugin.results import bits_differ, unpacked_problem

SEED = 0

SUMMED = 1e-4
"""How far sums in another order may be apart, relative: fp32 sums of a few thousand tokens keep five digits."""


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
        """The settled statistics of a block, or of the one group that it is, if these options need any."""
        if not self.calibrates:
            return None
        return self.settle(block, batches, self.collect(block, batches))

    def collect(self, block: Block, batches: Sequence[Batch]) -> dict[str, Collected]:
        """What the method gathers over these samples."""
        block, batches = self._given(block, batches)
        return self.method.calibrate(block, batches, self.config)

    def settle(self, block: Block, batches: Sequence[Batch], collected: Mapping[str, Collected]) -> dict[str, Stats]:
        """What the method makes of what it gathered."""
        block, batches = self._given(block, batches)
        return self.method.settle(block, batches, values_of(collected), self.config, SEED)

    def quantize(self, block: Block, batches: Sequence[Batch]) -> list[Quantized]:
        """Take a block all the way, as a run does; its linears end up with their dequantized weights."""
        shapes = {name: (linear.out_features, linear.in_features) for name, linear in block.layers.items()}
        self.method.check_layers(shapes, self.config)
        return [item for part, seen in self.parts(block, batches) for item in self.quantize_part(part, seen)]

    def parts(self, block: Block, batches: Sequence[Batch]) -> Iterator[tuple[Block, Sequence[Batch]]]:
        """What the method calibrates at once, and what it sees of the samples by then: the block, or each group."""
        if self.method.spec.inputs == "block":
            yield block, batches
            return
        references = [_inputs_of_groups(block, batch) for batch in batches]
        for group in block.groups:
            seen = []
            for batch, reference in zip(batches, references, strict=True):
                inputs = _inputs_of_groups(block, batch)[group]
                seen.append(replace(batch, hidden_states=inputs, reference=reference[group]))
            yield lone_group(block, group), seen

    def quantize_part(self, part: Block, batches: Sequence[Batch]) -> list[Quantized]:
        """Calibrate and quantize a block, or the one group that it is."""
        stats = self.calibrate(part, batches)
        return [item for group in part.groups for item in self.quantize_group(part, group, stats)]

    def quantize_group(
        self, block: Block, group: Sequence[str], stats: Mapping[str, Stats] | None
    ) -> Iterator[Quantized]:
        """Quantize linears of a block that share one input."""
        layers = [Layer(name, block.layers[name].weight.detach()) for name in group]
        for layer, result in zip(layers, self.method.quantize_group(layers, stats, self.config, SEED), strict=True):
            packed = self.method.pack(result, self.config)
            block.layers[layer.name].weight.data = result.dequantized
            yield Quantized(layer, stats[layer.name] if stats else None, result, packed)

    def unpack_problem(self, item: Quantized, packed: Mapping[str, Tensor]) -> str:
        """How the weight of packed tensors differs from the layer's `dequantized`; empty when it does not."""
        return unpacked_problem(self.method.unpack(packed, item.layer.spec, self.config), item.result.dequantized)

    @contextmanager
    def emulated(self, block: Block, items: Sequence[Quantized]) -> Iterator[None]:
        """Let the linears of a block see their inputs as a runtime's kernels do."""
        tensors = {f"{item.layer.name}.{local}": value for item in items for local, value in item.packed.items()}
        configs = dict.fromkeys(block.layers, self.config)
        handles = emulate_inputs(block.layers, tensors, self.method, configs)
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _given(self, block: Block, batches: Sequence[Batch]) -> tuple[Block, Sequence[Batch]]:
        """The block with the options of its layers; the samples with what the method asks for, and nothing more."""
        if not (self.method.spec.reference_inputs and self.config.needs_reference):
            batches = [replace(batch, reference=None) for batch in batches]
        elif not block.of_group:
            batches = [replace(batch, reference=batch.hidden_states) for batch in batches]
        return replace(block, configs=dict.fromkeys(block.layers, self.config)), batches


def _inputs_of_groups(block: Block, batch: Batch) -> dict[tuple[str, ...], Tensor]:
    """The input, (1, tokens, K), of each group of a block as it is now."""
    seen: dict[tuple[str, ...], Tensor] = {}
    observe_inputs(block, [batch], lambda group, inputs: seen.update({group: inputs[None].clone()}))
    return seen


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


def sums_differ(left: Tensor, right: Tensor) -> str:
    """How two statistics differ by more than the order of sums explains; empty when they do not."""
    if left.shape != right.shape or left.dtype != right.dtype:
        return f"{left.dtype} {tuple(left.shape)} instead of {right.dtype} {tuple(right.shape)}"
    change, whole = (tensor.double().norm().item() for tensor in (left.double() - right.double(), right))
    return "" if change <= SUMMED * whole else f"they are {change / whole if whole else change:.2g} apart, relative"


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
