"""Which part of the model each tensor belongs to, and the bytes of each part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch

from hyocr_core.checkpoint.reader import CheckpointReader, TensorInfo
from hyocr_core.formats.cache import split_name
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import open_weights
from hyocr_core.models.spelling import BLOCKS, EMBEDDING, VISION
from hyocr_core.wording import phrase

HEAD = "lm_head"


def parts(model: HunYuanVL) -> dict[str, set[str]]:
    """decoder, vision, embeddings (a head of its own included) and rest -> on-disk names of full-precision tensors."""
    named = {
        phrase("decoder"): set(model.tensors_below(BLOCKS).values()),
        phrase("vision"): set(model.tensors_below(VISION).values()),
        phrase("embeddings"): {name for path in (EMBEDDING, HEAD) for name in model.tensors_below(path).values()},
    }
    return named | {phrase("rest"): set(model.reader.tensors).difference(*named.values())}


def part_bytes(model: HunYuanVL, stored: Mapping[str, TensorInfo]) -> dict[str, int]:
    """Bytes of each part as it is stored; a packed linear counts where its weight belongs.

    stored: the tensors of the files; `model` reads them, through a dequantized view where they are quantized.
    """
    named = parts(model)
    owners = {name: part for part, names in named.items() for name in names}
    sizes = dict.fromkeys(named, 0)
    for name, info in stored.items():
        sizes[owners[name if name in owners else f"{split_name(name)[0]}.weight"]] += info.nbytes
    return sizes


def stored_bytes(folder: Path) -> tuple[int, dict[str, int]]:
    """Size of a checkpoint's weight files, and `part_bytes` of what they hold."""
    model = HunYuanVL(open_weights(folder), torch.device("meta"))
    files = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return files, part_bytes(model, CheckpointReader(folder).tensors)
