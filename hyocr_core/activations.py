"""The activation cache: every sample's hidden states at the input of the block at work, in memory or on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from safetensors.torch import load_file, save_file
from torch import Tensor

from hyocr_core.models.hunyuan_vl import Embedded
from hyocr_core.types import Batch


def save_embedded(path: Path, embedded: Embedded) -> None:
    """Write atomically, so that a killed run leaves no torn file."""
    partial = path.with_suffix(".partial")
    save_file({"hidden_states": embedded.hidden_states, "position_ids": embedded.position_ids}, partial)
    partial.replace(path)


def load_embedded(path: Path) -> Embedded:
    tensors = load_file(path)
    # safetensors maps the file; a copy keeps the pages of many samples out of the resident set.
    return Embedded(tensors["hidden_states"].clone(), tensors["position_ids"].clone())


@dataclass(frozen=True)
class CachedBatches:
    """The inputs of one block as a method sees them: sized, and iterable as often as needed."""

    cache: ActivationCache
    on_sample: Callable[[str], None]

    def __len__(self) -> int:
        return len(self.cache.names)

    def __iter__(self) -> Iterator[Batch]:
        for index, name in enumerate(self.cache.names):
            self.on_sample(name)
            yield self.cache.to_batch(name, self.cache.get(index))


class ActivationCache:
    """Starts from the embedded samples in `folder`; `put` replaces one sample's hidden states by a block's output.

    The files in `folder` stay as they are, so that a resumed run can start from them; with `spill`, what `put`
    stores goes to files beside them instead of memory.
    """

    def __init__(
        self, folder: Path, names: list[str], to_batch: Callable[[str, Embedded], Batch], *, spill: bool
    ) -> None:
        self.names = names
        self.to_batch = to_batch
        self._folder = folder
        self._spill = spill
        self._samples: list[Embedded | Path] = [
            path if spill else load_embedded(path) for path in map(self.source_path, range(len(names)))
        ]

    def source_path(self, index: int) -> Path:
        return self._folder / f"{index:05d}.safetensors"

    def get(self, index: int) -> Embedded:
        sample = self._samples[index]
        return load_embedded(sample) if isinstance(sample, Path) else sample

    def put(self, index: int, hidden_states: Tensor) -> None:
        embedded = Embedded(hidden_states.to("cpu"), self.get(index).position_ids)
        if not self._spill:
            self._samples[index] = embedded
            return
        path = self._folder / f"{index:05d}.spilled.safetensors"
        save_embedded(path, embedded)
        self._samples[index] = path
