"""How far a small change of the logits moves what a model predicts, to second order.

For p the model's prediction and d a change of its logits, KL(p || p') = d' F d / 2 with F = diag(p) - p p', the Fisher
information of a softmax. A draw is a vector g = A e of a random sign e for every token of the vocabulary, where
A A' = F, so that (g' d)^2 is d' F d on average. Through the transposed model a draw becomes, at the output of any
linear, what a change there is to be multiplied with. See Martens, "New Insights and Perspectives on the Natural
Gradient Method", 2020.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_CHUNK = 1 << 23
"""Logits at once."""


def fisher_draw(logits: Tensor, signs: Tensor) -> Tensor:
    """A draw for each position, (positions, vocabulary) fp32; signs: 1 or -1, of the same shape."""
    prediction = torch.softmax(logits.float(), dim=-1)
    signed = prediction.sqrt() * signs
    return signed - prediction * signed.sum(dim=-1, keepdim=True)


def drawn_gradients(states: Tensor, rows: Tensor, head: Callable[[Tensor], Tensor], draws: int, seed: int) -> Tensor:
    """Draws at the output of the decoder, (draws, tokens, hidden_size) fp32, zero where nothing is predicted from.

    states: (1, tokens, hidden_size). rows: (positions,) int64, the tokens from which the answer is predicted. head:
    (1, positions, hidden_size) -> logits (1, positions, vocabulary).
    """
    generator = torch.Generator().manual_seed(seed)
    found = torch.zeros(draws, *states.shape[1:], device=states.device)
    with torch.no_grad():
        vocabulary = head(states[:, rows[:1]].float()).shape[-1]
    step = max(1, _CHUNK // vocabulary)
    for some in (rows[start : start + step] for start in range(0, len(rows), step)):
        own = states[:, some].float().requires_grad_()
        with torch.enable_grad():
            logits = head(own)
        for draw in range(draws):
            signs = torch.randint(0, 2, logits.shape, generator=generator) * 2 - 1
            drawn = fisher_draw(logits.detach(), signs.to(logits))
            [gradient] = torch.autograd.grad(logits, own, drawn, retain_graph=True)
            found[draw, some] = gradient[0]
    return found
