"""A block that runs over the samples once: while a method looks at them, and before it is quantized."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from hyocr_core.checkpoint.shards import iterate_shard
from hyocr_core.contract.types import Batch, Block
from hyocr_core.run.activations import save_spilled
from hyocr_core.run.streams import BlockBatches


class SinglePass:
    """A block's samples for methods that see what it makes of them unquantized; that is kept, to be computed once.

    A method that is given these batches, and `run` in the block's place, may iterate over them as often as it likes.
    """

    def __init__(self, block: Block, batches: BlockBatches) -> None:
        self._block = block
        self._batches = batches
        self._cache = batches.streams.quantized
        self._made: list[Tensor | Path | None] = [None] * len(batches)
        self._at: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self._made)

    def __iter__(self) -> Iterator[Batch]:
        for index, batch in enumerate(self._batches):
            self._at = index, batch.hidden_states
            yield batch
        self._at = None

    def run(self, batch: Batch) -> Tensor:
        """The block's output."""
        output = self._block.run(batch)
        if self._at is not None and self._at[1] is batch.hidden_states:
            self._keep(self._at[0], output)
        return output

    @torch.no_grad()
    def complete(self) -> None:
        """Run the block over what it has not run over: only before it is quantized."""
        for index, made in enumerate(self._made):
            if made is None:
                self._keep(index, self._block.run(self._cache.batch(index)))

    def output(self, index: int, _batch: Batch) -> Tensor:
        """What was kept of a sample; no longer afterwards."""
        made, self._made[index] = self._made[index], None
        if made is None:
            raise RuntimeError("the block has not run over this sample")
        return self._cache.room.take(_read(made) if isinstance(made, Path) else made)

    def _keep(self, index: int, output: Tensor) -> None:
        if self._made[index] is not None:
            return
        kept = self._cache.room.keep(output.detach())
        path = self._cache.spilled_path(index, "made")
        if path is not None:
            save_spilled(path, {"output": kept})
        self._made[index] = kept if path is None else path


def _read(path: Path) -> Tensor:
    [(_name, output)] = iterate_shard(path, ["output"])
    return output
