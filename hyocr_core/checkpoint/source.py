"""What a model needs of a checkpoint: what CheckpointReader gives, and the dequantized view of a quantized one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_core.checkpoint.reader import TensorInfo


class TensorSource(Protocol):
    """Tensors by on-disk name."""

    @property
    def folder(self) -> Path: ...

    @property
    def config(self) -> dict[str, Any]: ...

    @property
    def tensors(self) -> Mapping[str, TensorInfo]: ...

    def read(self, names: Iterable[str]) -> dict[str, Tensor]: ...
