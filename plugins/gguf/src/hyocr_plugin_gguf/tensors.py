"""What becomes of every tensor of a checkpoint in the two GGUF files: its type there, and its bytes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import quantize

from hyocr_core import CheckpointError
from hyocr_plugin_gguf.names import gguf_name, is_vision
from hyocr_plugin_gguf.opened import Opened
from hyocr_plugin_gguf.stored import IMPORTANCE, GgufFormat

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from hyocr_plugin_gguf.config import GgufConfig

CODES = GgufFormat.codes
ROWS_AT_ONCE = 4096
POSITIONS = "vit.embeddings.position_embedding.weight"
EMBEDDINGS = ("model.embed_tokens.weight", "lm_head.weight")


@dataclass(frozen=True)
class GgufTensor:
    """One tensor of a GGUF file.

    shape: as PyTorch has it. type: of ggml. read: makes its bytes, of the shape that numpy has of them.
    """

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    read: Callable[[], NDArray[np.generic]]

    @property
    def nbytes(self) -> int:
        """Of its data."""
        weights, size = GGML_QUANT_SIZES[self.type]
        return math.prod(self.shape) // weights * size


def source_names(opened: Opened, *, vision: bool) -> dict[str, str]:
    """Name in GGUF -> published name of what becomes a tensor of the text part, or of the vision part."""
    found = {}
    for name in opened.places:
        module, _, local = name.rpartition(".")
        tied = name == "lm_head.weight" and opened.config.tie_word_embeddings
        if is_vision(name) == vision and local != IMPORTANCE and not tied:
            found[gguf_name(f"{module}.weight" if local == CODES else name)] = name
    return found


def gguf_tensors(opened: Opened, config: GgufConfig, *, vision: bool) -> Iterator[GgufTensor]:
    """Yield the tensors of the text part, or of the vision part, in the checkpoint's order."""
    for own, name in source_names(opened, vision=vision).items():
        made = _packed(opened, own, name) if name.endswith(f".{CODES}") else _plain(opened, own, name, config)
        yield made


def _packed(opened: Opened, own: str, name: str) -> GgufTensor:
    written = opened.format_of(name)
    shape = written.linear_shape(opened.shape(name))
    return GgufTensor(own, shape, written.ggml, lambda: opened.read(name).numpy())


def _plain(opened: Opened, own: str, name: str, config: GgufConfig) -> GgufTensor:
    shape, kind = opened.shape(name), _type(name, opened.shape(name), config)
    dropped = 1 if name == POSITIONS else 0
    if dropped:  # The row of a class token, which nothing reads.
        shape = (shape[0] - 1, *shape[1:])

    def read() -> NDArray[np.generic]:
        return _encoded(opened, name, kind, dropped)

    return GgufTensor(own, shape, kind, read)


def _type(name: str, shape: tuple[int, ...], config: GgufConfig) -> GGMLQuantizationType:
    """Matrices are small, what is added or multiplied element by element is exact."""
    if name in EMBEDDINGS:
        wanted = config.embedding_type
    elif name == POSITIONS or len(shape) == 1:
        return GGMLQuantizationType.F32
    elif is_vision(name) and len(shape) == 2:
        wanted = config.mmproj
    else:
        wanted = "f16"
    kind = GGMLQuantizationType[wanted.upper()]
    return kind if shape[-1] % GGML_QUANT_SIZES[kind][0] == 0 else GGMLQuantizationType.F16


def _encoded(opened: Opened, name: str, kind: GGMLQuantizationType, dropped: int) -> NDArray[np.generic]:
    """Rows by rows, so that few are in memory as float32."""
    tensor = opened.read(name)[dropped:]
    if kind == GGMLQuantizationType.F32:
        return tensor.float().numpy()
    parts = [quantize(rows.float().numpy(), kind) for rows in torch.split(tensor, ROWS_AT_ONCE)]
    made: NDArray[np.generic] = np.concatenate(parts)
    if kind == GGMLQuantizationType.F16 and not np.isfinite(made).all():
        raise CheckpointError(f"{name} has values that overflow float16")
    return made
