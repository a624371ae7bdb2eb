"""Memory that a page takes while it is computed on, by its size; attention itself keeps no matrix of all its pairs.

Counted from what a block of Transformers' model holds at its peak, in the dtype of the weights if not said otherwise;
measured at the published shape with 4,096 to 9,216 patches and tokens: within a tenth of that.
"""

from __future__ import annotations

from typing import Any

CHANNELS = 3
FLOAT = 4
PREPROCESSED = 18
"""Bytes per value of an image: 14 that the image processor holds at its peak, the image itself, one copy of it, and
what the allocator keeps back where several threads asked for memory (0 to 2, from run to run)."""


def prepared_bytes(vision: Any, patches: int) -> int:
    """An image on its way through the image processor; vision: the config of the vision tower."""
    return int(PREPROCESSED * CHANNELS * vision.patch_size**2 * patches)


def vision_bytes(vision: Any, patches: int, itemsize: int) -> int:
    """A block of the vision tower: what its MLP makes, before and after the activation; and the pixels, fp32."""
    block = itemsize * (2 * vision.intermediate_size + 3 * vision.hidden_size)
    return int((block + FLOAT * CHANNELS * vision.patch_size**2) * patches)


def decoder_bytes(text: Any, tokens: int, itemsize: int) -> int:
    """A block of the decoder: queries and keys while they are turned, in fp32, or what its MLP makes."""
    queries, keys = text.num_attention_heads * text.head_dim, text.num_key_value_heads * text.head_dim
    attention = FLOAT * (4 * queries + keys) + itemsize * (queries + 2 * keys)
    return int((max(attention, 3 * itemsize * text.intermediate_size) + 2 * itemsize * text.hidden_size) * tokens)


def cache_bytes(text: Any, tokens: int, itemsize: int) -> int:
    """Keys and values of all blocks."""
    return int(2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim * itemsize * tokens)
