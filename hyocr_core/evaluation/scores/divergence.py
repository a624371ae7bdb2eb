"""How far two next-token distributions are apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

_CHUNK = 1 << 23  # logits computed at once, so that pages of answers over a large vocabulary fit in memory


@dataclass(frozen=True)
class Divergence:
    """By position: agrees (positions,) bool, both find the same token likeliest; kl (positions,) float32, nats."""

    agrees: Tensor
    kl: Tensor


def divergence(baseline_logits: Tensor, logits: Tensor) -> Divergence:
    """Compare two models' logits, (positions, vocabulary) in any float dtype: KL(baseline || model) in float32."""
    baseline, model = (torch.log_softmax(values.float(), dim=-1) for values in (baseline_logits, logits))
    kl = torch.nn.functional.kl_div(model, baseline, reduction="none", log_target=True).sum(dim=-1)
    return Divergence(baseline_logits.argmax(dim=-1) == logits.argmax(dim=-1), kl)


def divergence_of_states(
    baseline_states: Tensor, states: Tensor, heads: tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]
) -> Divergence:
    """`divergence` from the states below the heads, each (positions, hidden size), a few positions at a time.

    heads: baseline's and model's, (positions, hidden size) -> (positions, vocabulary).
    """
    vocabulary = heads[0](baseline_states[:1]).shape[-1]
    rows = max(1, _CHUNK // vocabulary)
    parts = [
        divergence(heads[0](baseline_states[start : start + rows]), heads[1](states[start : start + rows]))
        for start in range(0, len(states), rows)
    ]
    return Divergence(torch.cat([part.agrees for part in parts]), torch.cat([part.kl for part in parts]))
