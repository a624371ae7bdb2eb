"""A checkpoint, there or planned, as what `serving_memory` estimates."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.formats import VLLM_CPU, VLLM_CUDA, PackQuantizedFormat, Runtime, StoredFormats
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.known_formats import known_formats, known_runtimes
from hyocr_core.models.load import unpacked
from hyocr_core.models.serving_memory import TRANSFORMERS, RuntimeName, Servable
from hyocr_core.models.tied import tied_copies
from hyocr_core.models.working_memory import Shapes
from hyocr_core.pages.processor import load_processor

FOUR_BITS = PackQuantizedFormat(4, 128, sym=True)
UNPACKING = "compressed_tensors"
"""The package that unpacks everything for Transformers."""

IN: Mapping[str, RuntimeName] = {VLLM_CPU: "vLLM", VLLM_CUDA: "vLLM", TRANSFORMERS: "Transformers"}


def servable(
    model: HunYuanVL, stored: int, copies: Iterable[str], config: Mapping[str, Any] | None, image_processor: Any
) -> Servable:
    """What a server would hold of a checkpoint.

    model: the full-precision one, or one seen through its unpacking. stored: bytes of the tensors that are on disk,
    without `copies`, the heads that are tied. config: what config.json says of quantization.
    """
    tensors = model.reader.tensors
    full = sum(info.nbytes for info in tensors.values()) - sum(tensors[name].nbytes for name in copies)
    names = [name for place in model.decoder_blocks for group in model.groups(place) for name in group]
    saved = sum(tensors[f"{name}.weight"].nbytes - _four_bits(model.linears[name]) for name in names)
    formats = None if config is None else known_formats(config)
    return Servable(
        shapes=Shapes.of(model.config, model.dtype.itemsize),
        stored=stored,
        unpacked=full,
        int4=full - saved,
        keeps_packed=formats is None or UNPACKING not in formats.packages,
        fp8_cache=bool((config or {}).get("kv_cache_scheme")),
        runtimes=_runtimes(config, formats, model),
        image_processor=image_processor,
    )


def open_servable(folder: Path) -> Servable:
    """The same of a checkpoint folder; reads headers, and the head if there is one beside the embedding."""
    reader = CheckpointReader(folder)
    model = HunYuanVL(unpacked(reader), torch.device("meta"))
    copies = tied_copies(model)
    stored = sum(info.nbytes for name, info in reader.tensors.items() if name not in copies)
    config = reader.config.get("quantization_config")
    return servable(model, stored, copies, config, load_processor(folder).image_processor)


def _four_bits(shape: tuple[int, int]) -> int:
    """Bytes of a linear in 4 bits; one that no whole group fits stays in 16."""
    outputs, inputs = shape
    return FOUR_BITS.nbytes(shape) if inputs % FOUR_BITS.group_size == 0 else 2 * outputs * inputs


def _runtimes(
    config: Mapping[str, Any] | None, formats: StoredFormats | None, model: HunYuanVL
) -> tuple[RuntimeName, ...]:
    """Those that load it, as far as is known."""
    if config is None or formats is None:
        return "vLLM", "Transformers"
    found: list[Runtime] = known_runtimes(config, {n: s for n, s in model.linears.items() if formats.of(n) is not None})
    return tuple(dict.fromkeys(IN[runtime.name] for runtime in found if runtime.loads != "no" and runtime.name in IN))
