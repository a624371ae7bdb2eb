"""What the tokens of a sample are, and weights under which every kind says as much as any other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from hyocr_core.pages.samples import Sample

if TYPE_CHECKING:
    from torch import Tensor

PROMPT, IMAGE, ANSWER = range(3)


def token_kinds(sample: Sample) -> Tensor:
    """The kind of each token: (tokens,) int64. What the chat template adds belongs to the prompt or to the answer."""
    kinds = torch.where(sample.inputs["mm_token_type_ids"][0] == 1, IMAGE, PROMPT)
    kinds[sample.prompt_tokens :] = ANSWER
    return kinds


def balanced_weights(kinds: Sequence[Tensor]) -> list[Tensor]:
    """For the `token_kinds` of all samples the weights of their tokens, (tokens,) fp32 each.

    The kinds that are there weigh the same in total, over all samples; the mean over all tokens is 1.
    """
    counts = sum((torch.bincount(own, minlength=3) for own in kinds), torch.zeros(3, dtype=torch.int64)).double()
    weights = counts.sum() / ((counts > 0).sum() * counts.clamp(min=1))
    return [weights.float()[own] for own in kinds]
