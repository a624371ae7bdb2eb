"""The activation cache: every sample's hidden states at the input of the block at work, in memory or on disk."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from hyocr_core.checkpoint.durable import replacing, writing
from hyocr_core.checkpoint.reader import digest
from hyocr_core.checkpoint.shards import iterate_shard, save_tensors
from hyocr_core.contract.types import Batch
from hyocr_core.models.hunyuan_vl import Embedded
from hyocr_core.run.room import Room


def sample_path(folder: Path, index: int) -> Path:
    """Where the embedded sample of the record `index` of a run lies."""
    return folder / f"{index:05d}.safetensors"


def save_embedded(path: Path, embedded: Embedded) -> str:
    """Write atomically and durably, and return the file's SHA-256: the journal vouches for it from then on."""
    with writing(path), replacing(path) as partial:
        save_tensors(partial, vars(embedded))
        return digest(partial)


def load_embedded(path: Path) -> Embedded:
    """Read a sample into memory of its own."""
    return Embedded(**dict(iterate_shard(path, ("hidden_states", "places"))))


def save_spilled(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write what a sample is between blocks, or inside one: `iterate_shard` reads it."""
    # No resumed run reads it, so it need be neither atomic nor on the disk for sure.
    with writing(path):
        save_file({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, path)


class ActivationCache:
    """Starts from the embedded samples in `folder`; `put` replaces one sample's hidden states by a block's output.

    The files in `folder` stay as they are, so that a resumed run can start from them; with `spill`, what `put`
    stores goes to files beside them instead of memory, named for the `stream`. weights: of every sample's tokens; see
    `Batch`. device: that computes; None for the CPU. numbers: of the samples' files; None: from 0 on.
    """

    def __init__(
        self,
        folder: Path,
        names: list[str],
        to_batch: Callable[[str, Embedded], Batch],
        *,
        spill: bool,
        weights: Sequence[Tensor] | None = None,
        stream: str = "quantized",
        device: torch.device | None = None,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.names = names
        self.numbers = range(len(names)) if numbers is None else numbers
        self._stream = stream
        self._to_batch = to_batch
        self._weights = weights
        self._folder = folder
        self._spill = spill
        paths = [sample_path(folder, number) for number in self.numbers]
        loaded = [] if spill else [load_embedded(path) for path in paths]
        size = sum(sample.hidden_states.nbytes for sample in loaded)
        self.room = Room.of(device or torch.device("cpu"), size, spill=spill)
        self._samples: list[Embedded | Path] = [self._placed(sample) for sample in loaded] or list(paths)

    def _placed(self, sample: Embedded) -> Embedded:
        return replace(sample, hidden_states=self.room.take(sample.hidden_states)) if self.room.stays else sample

    def get(self, index: int) -> Embedded:
        sample = self._samples[index]
        return load_embedded(sample) if isinstance(sample, Path) else sample

    def batch(self, index: int) -> Batch:
        """One sample as a block of the tower takes it."""
        batch = self._to_batch(self.names[index], self.get(index))
        if self._weights is None:
            return batch
        return replace(batch, weights=self._weights[index].to(batch.hidden_states.device))

    def spilled_path(self, index: int, what: str) -> Path | None:
        """Where something of a sample goes on the disk; None when it stays in memory."""
        return self._folder / f"{self.numbers[index]:05d}.{self._stream}.{what}.safetensors" if self._spill else None

    def put(self, index: int, hidden_states: Tensor) -> None:
        embedded = Embedded(self.room.keep(hidden_states), self.get(index).places)
        path = self.spilled_path(index, "output")
        if path is None:
            self._samples[index] = embedded
            return
        save_spilled(path, vars(embedded))
        self._samples[index] = path
