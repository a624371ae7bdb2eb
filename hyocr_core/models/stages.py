"""A block walked in stages: up to the input of one group of linears after the other, each operation computed once.

What Transformers' block computes is not written again here. The block runs with the modules that are behind a sample
answering from memory, and is left at the linear whose input is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from hyocr_core.contract.types import Batch, Block
from hyocr_core.models.wiring import ATTENTION, Place


@dataclass(frozen=True)
class Standing:
    """Where a sample stands inside a block.

    inputs: (1, tokens, K) of the linear it stands at, None before the first. known: outputs of the modules, by path in
    the block, that are behind it.
    """

    inputs: Tensor | None = None
    known: Mapping[str, Tensor] = field(default_factory=dict)


class StagedBlock:
    """A block of a model, its module with the weights that it has now. place: says how it is wired."""

    def __init__(self, module: nn.Module, place: Place) -> None:
        self._module = module
        self._wiring = place.wiring

    def go_on(self, batch: Batch, standing: Standing, done: Sequence[str], until: str) -> Standing:
        """Bring a sample to the input of the linear `until`; paths are those in the block.

        batch: the sample at the input of the block. done: the linears that it stands at, which now are as they will
        stay.
        """
        known = self._behind(standing, done)
        with self._answering(known), _left_at(self._module.get_submodule(until)) as inputs:
            self._run(batch)
        return Standing(inputs(), known)

    def finish(self, batch: Batch, standing: Standing, done: Sequence[str]) -> Tensor:
        """Return the block's output, (1, tokens, hidden_size)."""
        with self._answering(self._behind(standing, done)):
            return self._wiring.run(self._module, batch)

    def _run(self, batch: Batch) -> None:
        try:
            self._wiring.run(self._module, batch)
        except _ReachedError:
            return

    def _behind(self, standing: Standing, done: Sequence[str]) -> dict[str, Tensor]:
        """The outputs of modules that are known once the linears `done` have run on the inputs that stand at them."""
        known = dict(standing.known)
        for path in done:
            whole = self._wiring.last.get(path)
            if whole is not None and standing.inputs is not None:
                known[whole] = self._module.get_submodule(path)(standing.inputs)
        return known

    @contextmanager
    def _answering(self, known: Mapping[str, Tensor]) -> Iterator[None]:
        """Let modules return what is known instead of computing it."""
        with ExitStack() as stack:
            for path, output in known.items():
                module: Any = self._module.get_submodule(path)
                module.forward = _constant((output, None) if path == ATTENTION else output)
                stack.callback(delattr, module, "forward")
            yield


class _ReachedError(Exception):
    """The block has come to the linear that was asked for."""


@contextmanager
def _left_at(linear: nn.Module) -> Iterator[Callable[[], Tensor]]:
    """Leave the block where it calls this linear; what is yielded returns the linear's input."""
    inputs: list[Tensor] = []

    def leave(_module: nn.Module, args: tuple[Any, ...]) -> None:
        inputs.append(args[0].detach())
        raise _ReachedError

    # Before all others, which may quantize the input.
    handle = linear.register_forward_pre_hook(leave, prepend=True)
    try:
        yield lambda: inputs[0]
    finally:
        handle.remove()


def _constant(value: Any) -> Callable[..., Any]:
    return lambda *_args, **_kwargs: value


def lone_group(block: Block, group: tuple[str, ...]) -> Block:
    """One group of a block's layers as a method sees it that calibrates group by group."""
    layers = {name: block.layers[name] for name in group}

    def run(batch: Batch) -> Tensor:
        return torch.cat([layer(batch.hidden_states) for layer in layers.values()], -1)

    configs = {name: config for name, config in block.configs.items() if name in group}
    cached = {name: module for name, module in block.cached.items() if name in group}
    return replace(
        block, layers=layers, groups=(group,), run=run, smoothing=(), cached=cached, configs=configs, of_group=True
    )


def part_of_block(block: Block, names: Collection[str]) -> Block:
    """A block as a method sees it that quantizes these of its layers only; scales move between those alone."""
    layers = {name: layer for name, layer in block.layers.items() if name in names}
    groups = (tuple(name for name in group if name in names) for group in block.groups)
    others = block.layers.keys() - layers.keys()
    smoothing = (one for one in block.smoothing if others.isdisjoint((one.name, *one.targets)))
    return replace(
        block,
        layers=layers,
        groups=tuple(group for group in groups if group),
        smoothing=tuple(smoothing),
        configs={name: config for name, config in block.configs.items() if name in names},
    )
