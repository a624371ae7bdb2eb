"""Memory that pages take while they are read in this process, beside the weights."""

from __future__ import annotations

from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.working_memory import cache_bytes, decoder_bytes, prepared_bytes, vision_bytes
from hyocr_core.pages.checked import Pages


def reading_bytes(model: HunYuanVL, pages: Pages, batch_size: int) -> int:
    """What the largest batch takes at its peak, for answers no longer than their prompts, as most are by far."""
    text, vision, itemsize = model.config.text_config, model.config.vision_config, model.dtype.itemsize
    most = 0
    for indices in pages.batches(batch_size):
        tokens, patches = (len(indices) * size for size in pages.size(indices[0]))
        read = decoder_bytes(text, tokens, itemsize) + cache_bytes(text, 2 * tokens, itemsize)
        most = max(most, prepared_bytes(vision, patches), vision_bytes(vision, patches, itemsize), read)
    return most
