"""The training loss: next character, plus three dense targets whose heads are thrown away at the end.

The renderer knows where each character stands, so the vision tower can be told directly what to see (the class of
each 4-pixel slot, the number of characters left of each column), and the decoder where to look next (the slot of
the next character). Without them most of a training run goes by before the decoder finds out where to look.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from batches import Batch, Prompt, cut
from fast_forward import COLUMNS, Config, Params, Rope, decoder, logits, to_patches, vision
from lines import ALPHABET, IGNORE, MAX_CHARS, SLOTS
from torch import Tensor
from torch.nn import functional

CLASSES = len(ALPHABET) + 1
AUX_SHAPES = {
    "aux.slot": (SLOTS // COLUMNS * CLASSES, 256),
    "aux.count": (MAX_CHARS + 1, 256),
    "aux.where": (SLOTS + 1, 256),
}


@dataclass(frozen=True)
class Losses:
    """Mean cross-entropies of a batch, and the share of answer tokens predicted rightly."""

    text: Tensor
    slot: Tensor
    count: Tensor
    where: Tensor
    accuracy: Tensor

    def total(self, aux: float) -> Tensor:
        """The objective, with the auxiliary losses at the given weight."""
        return self.text + aux * (self.slot + 0.3 * self.count + 0.5 * self.where)


def _cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(scores.flatten(0, -2).float(), target.flatten(), ignore_index=IGNORE)


def losses(p: Params, config: Config, batch: Batch, prompt: Prompt, rope: Rope, norm: Tensor) -> Losses:
    """Forward a batch; norm holds the image mean and standard deviation, [2, 3]."""
    head = p["aux.slot"]
    patches = to_patches(batch.pixels, norm[0], norm[1]).to(head.dtype)
    image = vision(p, config, patches, rope.forward)
    columns = image[:, 1 : 1 + COLUMNS]
    states = decoder(p, config, batch.ids, image, prompt.image_start, cut(rope, batch.ids.shape[1]))
    answering = slice(len(prompt.ids) - 1, None)
    middle = states[len(states) // 2 - 1][:, answering]
    scores = logits(p, states[-1][:, answering])
    known = batch.answers != IGNORE
    hits = (scores.argmax(-1) == batch.answers) & known
    return Losses(
        text=_cross_entropy(scores, batch.answers),
        slot=_cross_entropy(functional.linear(columns, head).view(*batch.slots.shape, CLASSES), batch.slots),
        count=_cross_entropy(functional.linear(columns, p["aux.count"]), batch.counts),
        where=_cross_entropy(functional.linear(functional.rms_norm(middle, (256,)), p["aux.where"]), batch.where),
        accuracy=hits.sum() / known.sum(),
    )


def aux_parameters(seed: int) -> dict[str, Tensor]:
    """Fresh auxiliary heads."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.02 for name, shape in AUX_SHAPES.items()}
