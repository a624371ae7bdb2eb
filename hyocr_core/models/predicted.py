"""What a whole model predicts, with only a part of it in memory at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from hyocr_core.contract.types import Batch
from hyocr_core.kit.smoothing import exact_output
from hyocr_core.models.hunyuan_vl import Embedded, HunYuanVL, ModelInputs


@torch.no_grad()
def predict(model: HunYuanVL, inputs: ModelInputs) -> Tensor:
    """Logits (tokens, vocabulary) fp32 of one sample; the decoder computes in fp32 with its weights as they are."""
    with model.front():
        embedded = model.embed(inputs)
    states = embedded.hidden_states.float()
    for index, place in enumerate(model.decoder_blocks):
        batch = model.batch("", Embedded(states, embedded.places))
        with model.block(place, index, ()) as block:
            states = states + exact_output(block, Batch(batch.name, states, batch.context))
    with model.head() as head:
        logits: Tensor = head(states)[0]
    return logits


def predicted_change(before: Tensor, after: Tensor) -> float:
    """How far two predictions (tokens, vocabulary) are apart, relative; a constant added to all logits is no change."""
    before, after = (logits - logits.mean(-1, keepdim=True) for logits in (before, after))
    return float((after - before).norm() / before.norm())
