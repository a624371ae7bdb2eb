"""Memory that pages take while they are read in this process, beside the weights."""

from __future__ import annotations

from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.working_memory import Shapes
from hyocr_core.pages.checked import Pages


def reading_bytes(model: HunYuanVL, pages: Pages, batch_size: int) -> int:
    """What the largest batch takes at its peak, for answers no longer than their prompts, as most are by far."""
    shapes = Shapes.of(model.config, model.dtype.itemsize)
    most = 0
    for indices in pages.batches(batch_size):
        together = len(indices)
        tokens, patches = (together * size for size in pages.size(indices[0]))
        read = shapes.decoder(tokens, together) + shapes.cache(2 * tokens)
        most = max(most, shapes.prepared(patches), shapes.vision(patches), read)
    return most
