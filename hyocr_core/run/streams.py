"""The samples on their way through the blocks: on the quantized path, and on the full-precision one if asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from hyocr_core.checkpoint.shards import iterate_shard, scan_shard
from hyocr_core.contract.types import Batch, Batches, Block
from hyocr_core.kit.checks import finite_checks
from hyocr_core.models.stages import StagedBlock, Standing
from hyocr_core.models.wiring import Place
from hyocr_core.ranks.ranks import Ranks
from hyocr_core.run.activations import ActivationCache, save_spilled

OnSample = Callable[[str], None]
Forward = Callable[[int, Batch], Tensor]
"""The output of a block for a sample, of its index and of what it is at the input of the block."""


@dataclass(frozen=True)
class Streams:
    """reference: the full-precision path; None for a method that does not ask for it."""

    quantized: ActivationCache
    reference: ActivationCache | None = None

    def __len__(self) -> int:
        return len(self.quantized.names)


@dataclass(frozen=True)
class BlockBatches:
    """The samples at the input of one block as a method sees them: sized, and iterable as often as needed."""

    streams: Streams
    on_sample: OnSample

    def __len__(self) -> int:
        return len(self.streams)

    def __iter__(self) -> Iterator[Batch]:
        for index, name in enumerate(self.streams.quantized.names):
            self.on_sample(name)
            batch = self.streams.quantized.batch(index)
            if self.streams.reference is not None:
                waiting = self.streams.reference
                batch = replace(batch, reference=waiting.room.take(waiting.get(index).hidden_states))
            yield batch


@torch.no_grad()
def propagate(block: Block, forward: Forward, cache: ActivationCache, on_sample: OnSample) -> None:
    """Replace every sample of a stream by the block's output."""
    with finite_checks() as checks:
        for index, name in enumerate(cache.names):
            on_sample(name)
            output = forward(index, cache.batch(index))
            checks.add(output, f"{block.name}: its output is NaN or infinite for the sample {name}")
            cache.put(index, output)


class StagedStream:
    """The samples of one stream inside one block, all standing at the same group of linears.

    module: the block's, with the weights of this stream. paths: on-disk name of a linear -> its path in the block.
    """

    def __init__(self, module: nn.Module, place: Place, paths: dict[str, str], cache: ActivationCache) -> None:
        self._block = StagedBlock(module, place)
        self._paths = paths
        self._cache = cache
        self._group: tuple[str, ...] = ()
        self._standings: list[Standing | Path] = [Standing()] * len(cache.names)

    def inputs(self, index: int) -> Tensor:
        """The input, (1, tokens, K), that the linears of the group read of a sample."""
        inputs = self._standing(index).inputs
        if inputs is None:
            raise RuntimeError("the samples stand before the first group")
        return inputs

    @torch.no_grad()
    def enter(self, group: tuple[str, ...], on_sample: OnSample) -> None:
        """Go on to the input of this group, through linears that have their final weights by now."""
        done = self._done()
        for index, name in enumerate(self._cache.names):
            on_sample(name)
            batch, standing = self._cache.batch(index), self._standing(index)
            self._keep(index, self._block.go_on(batch, standing, done, self._paths[group[0]]))
        self._group = group

    def finish(self, index: int, batch: Batch) -> Tensor:
        """The block's output for a sample, (1, tokens, hidden_size)."""
        return self._block.finish(batch, self._standing(index), self._done())

    def _done(self) -> list[str]:
        return [self._paths[name] for name in self._group]

    def _standing(self, index: int) -> Standing:
        standing = self._standings[index]
        if isinstance(standing, Standing):
            return _moved(standing, self._cache.room.take)
        tensors = dict(iterate_shard(standing, scan_shard(standing)))
        inputs = tensors.pop("inputs")
        return _moved(Standing(inputs, tensors), self._cache.room.take)

    def _keep(self, index: int, standing: Standing) -> None:
        standing = _moved(standing, self._cache.room.keep)
        path = self._cache.spilled_path(index, "standing")
        if path is None or standing.inputs is None:
            self._standings[index] = standing
            return
        save_spilled(path, {"inputs": standing.inputs, **standing.known})
        self._standings[index] = path


@dataclass(frozen=True)
class GroupBatches:
    """The samples at the input of one group of linears as a method sees them."""

    cache: ActivationCache
    quantized: StagedStream
    reference: StagedStream | None
    on_sample: OnSample

    def __len__(self) -> int:
        return len(self.cache.names)

    def __iter__(self) -> Iterator[Batch]:
        for index, name in enumerate(self.cache.names):
            self.on_sample(name)
            inputs = self.quantized.inputs(index)
            yield replace(self.cache.batch(index), hidden_states=inputs, reference=self._reference(index, inputs))

    def _reference(self, index: int, inputs: Tensor) -> Tensor | None:
        if self.reference is self.quantized:
            # The same object, so that a method can see that it is the same.
            return inputs
        return None if self.reference is None else self.reference.inputs(index)


def _moved(standing: Standing, move: Callable[[Tensor], Tensor]) -> Standing:
    inputs = None if standing.inputs is None else move(standing.inputs)
    return Standing(inputs, {path: move(output) for path, output in standing.known.items()})


@dataclass(frozen=True)
class OwnBatches:
    """The samples as one of several methods sees them: without what only another one asked for."""

    batches: Batches
    ranks: Ranks
    weighted: bool
    referenced: bool

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self.batches:
            yield replace(
                batch,
                weights=batch.weights if self.weighted else None,
                reference=batch.reference if self.referenced else None,
            )

    def total(self, values: Tensor) -> Tensor:
        """The sum of what each process has measured on its samples; see `hyocr_core.kit.total`."""
        return self.ranks.reduce(values, "sum")
