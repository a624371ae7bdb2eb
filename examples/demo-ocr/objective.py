"""The training loss: next character, plus three dense targets whose heads are thrown away at the end.

The renderer knows where each character stands, so the vision tower can be told directly what to see (the class of
each 4-pixel slot, the number of characters left of each column), and the decoder where to look next (the slot of
the next character). Without them most of a training run goes by before the decoder finds out where to look.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from batches import Batch, Prompt, cut
from fast_forward import Config, Params, Rope, decoder, logits, to_patches, vision
from lines import IGNORE
from readers import Reader
from torch import Tensor
from torch.nn import functional


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


def losses(p: Params, config: Config, reader: Reader, batch: Batch, prompt: Prompt, rope: Rope, norm: Tensor) -> Losses:
    """Forward a batch; norm holds the image mean and standard deviation, [2, 3]."""
    head = p["aux.slot"]
    patches = to_patches(batch.pixels, norm[0], norm[1]).to(head.dtype)
    image = vision(p, config, patches, reader.grid, rope.forward)
    rows = image[:, 1:-1].view(len(image), reader.lines, reader.columns + 1, -1)
    columns = rows[:, :, :-1].flatten(1, 2)
    states = decoder(p, config, batch.ids, image, prompt.image_start, cut(rope, batch.ids.shape[1]))
    answering = slice(len(prompt.ids) - 1, None)
    middle = states[len(states) // 2 - 1][:, answering]
    scores = logits(p, states[-1][:, answering])
    known = batch.answers != IGNORE
    hits = (scores.argmax(-1) == batch.answers) & known
    return Losses(
        text=_cross_entropy(scores, batch.answers),
        slot=_cross_entropy(functional.linear(columns, head).view(*batch.slots.shape, -1), batch.slots),
        count=_cross_entropy(functional.linear(columns, p["aux.count"]), batch.counts),
        where=_cross_entropy(
            functional.linear(functional.rms_norm(middle, middle.shape[-1:]), p["aux.where"]), batch.where
        ),
        accuracy=hits.sum() / known.sum(),
    )


def aux_parameters(reader: Reader, seed: int) -> dict[str, Tensor]:
    """Fresh auxiliary heads."""
    generator = torch.Generator().manual_seed(seed)
    classes = len(reader.alphabet) + 1
    outputs = {
        "aux.slot": reader.slots // reader.columns * classes,
        "aux.count": reader.max_tokens + 1,
        "aux.where": reader.lines * reader.slots + 1,
    }
    width = reader.text["hidden_size"]
    return {name: torch.randn(count, width, generator=generator) * 0.02 for name, count in outputs.items()}
