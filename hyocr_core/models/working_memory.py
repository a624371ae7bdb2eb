"""Memory that pages take while they are computed on, by their size and the widths of the model.

Read off Transformers' modules, as the tensors that are alive at once in a block, and held against what PyTorch
allocates (tests/models/test_working_memory.py); at the published widths, with 4,096 to 9,216 patches and tokens, the
peak of a process was within a tenth of that. Attention is SDPA or flash, which keeps no matrix of all its pairs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CHANNELS = 3
FLOAT = 4
PREPROCESSED = 18
"""Bytes per value of an image: 14 that the image processor holds at its peak, the image itself, one copy of it, and
what the allocator keeps back where several threads asked for memory (0 to 2, from run to run)."""


@dataclass(frozen=True)
class Shapes:
    """The widths that memory depends on. itemsize: bytes of an activation."""

    layers: int
    hidden: int
    intermediate: int
    head: int
    queries: int
    keys: int
    vocabulary: int
    context: int
    vision_hidden: int
    vision_intermediate: int
    patch: int
    itemsize: int

    @classmethod
    def of(cls, config: Any, itemsize: int) -> Shapes:
        """Of Transformers' HunYuanVLConfig."""
        text, vision = config.text_config, config.vision_config
        return cls(
            layers=text.num_hidden_layers,
            hidden=text.hidden_size,
            intermediate=text.intermediate_size,
            head=text.head_dim,
            queries=text.num_attention_heads * text.head_dim,
            keys=text.num_key_value_heads * text.head_dim,
            vocabulary=text.vocab_size,
            context=text.max_position_embeddings,
            vision_hidden=vision.hidden_size,
            vision_intermediate=vision.intermediate_size,
            patch=vision.patch_size,
            itemsize=itemsize,
        )

    def prepared(self, patches: int) -> int:
        """Bytes of an image on its way through the image processor."""
        return PREPROCESSED * CHANNELS * self.patch**2 * patches

    def vision(self, patches: int) -> int:
        """Bytes alive in the tower at its peak: three states and both sides of the activation in the MLP, or seven
        states in the attention; and the pixels, in fp32."""
        states = max(3 * self.vision_hidden + 2 * self.vision_intermediate, 7 * self.vision_hidden)
        return patches * (states * self.itemsize + FLOAT * CHANNELS * self.patch**2)

    def decoder(self, tokens: int, pages: int) -> int:
        """Bytes alive in the decoder at its peak: the MLP, or queries and keys turned in fp32 by a cosine and a sine;
        and the logits of one token of each page, also in fp32."""
        mlp = (3 * self.hidden + 3 * self.intermediate) * self.itemsize
        projected = (2 * self.hidden + self.queries + 2 * self.keys + 2 * self.head) * self.itemsize
        turned = FLOAT * (4 * self.queries + self.keys)
        return tokens * max(mlp, projected + turned) + pages * self.vocabulary * (self.itemsize + FLOAT)

    def cache(self, tokens: int, itemsize: int | None = None) -> int:
        """Bytes of the keys and values of so many tokens in all blocks; itemsize: of one, None for an activation's."""
        return 2 * self.layers * self.keys * (itemsize or self.itemsize) * tokens
