"""Tensors that a checkpoint holds although its config ties them to others."""

from __future__ import annotations

import torch
from torch import Tensor

from hyocr_core.checkpoint.source import TensorSource
from hyocr_core.errors import CheckpointError
from hyocr_core.models.hunyuan_vl import HunYuanVL


def tied_copies(model: HunYuanVL) -> dict[str, str]:
    """On-disk name of each tensor that is a copy -> that of what the config ties it to, as a head to the embedding.

    Raises CheckpointError for one that differs.
    """
    for name, other in model.tied_on_disk.items():
        if not equal_on_disk(model.reader, name, other):
            shard = model.reader.folder / model.reader.tensors[name].shard
            raise CheckpointError(
                f"{shard}: {name} differs from {other}, to which config.json ties it (tie_word_embeddings): runtimes "
                "would not agree which counts; set tie_word_embeddings to false, or mend the checkpoint"
            )
    return model.tied_on_disk


def equal_on_disk(source: TensorSource, name: str, other: str) -> bool:
    """Whether two tensors hold the same bytes."""
    left, right = source.read([name, other]).values()
    return left.dtype == right.dtype and torch.equal(_bytes(left), _bytes(right))


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(torch.uint8)
