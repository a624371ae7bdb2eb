"""A checkpoint some of whose tensors are replaced by others."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hyocr_core.checkpoint.reader import CheckpointReader, TensorInfo

if TYPE_CHECKING:
    from torch import Tensor


class OverlaidCheckpoint:
    """A TensorSource. replaced: on-disk name -> tensor, each in shape and dtype of the one it stands for."""

    def __init__(self, reader: CheckpointReader, replaced: Mapping[str, Tensor]) -> None:
        self._reader = reader
        self._replaced = replaced

    @property
    def folder(self) -> Path:
        return self._reader.folder

    @property
    def config(self) -> dict[str, Any]:
        return self._reader.config

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._reader.tensors

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of these names; own copies."""
        wanted = list(names)
        found = self._reader.read([name for name in wanted if name not in self._replaced])
        return {name: found[name] if name in found else self._replaced[name].clone() for name in wanted}
