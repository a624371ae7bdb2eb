"""Answers that end where they begin to repeat themselves: watched while they are written, cut when they are there."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from hyocr_core.contract.decoding import Decoding
from hyocr_core.evaluation.reading.arriving import ArrivingText, Decode
from hyocr_core.evaluation.scores.loops import STOP_FROM, STOP_SPAN, STOP_STEP, loop_stop, repeats
from hyocr_core.evaluation.scores.score import Answer

STRIDE = 64
"""Tokens between two looks at what is written."""


def as_decoded(answer: Answer, decoding: Decoding) -> Answer:
    """The answer as far as `decoding` lets it go, whoever wrote it. One that is stopped is not cut at its limit."""
    end = loop_stop(answer.text) if decoding.stop_loops else None
    return answer if end is None else replace(answer, text=answer.text[:end], ended=True)


class LoopWatch:
    """Follows one answer and says when `loop_stop` finds a loop in it. Every token is decoded once, or a few times."""

    def __init__(self, decode: Decode) -> None:
        self._text = ArrivingText(decode)
        self._tail = ""
        self._length = 0
        self._look = STOP_FROM

    def repeats(self, tokens: Sequence[int]) -> bool:
        """Take the tokens written since the last call; whether the answer repeats itself now."""
        text = self._text.add(tokens)
        self._length += len(text)
        text = self._tail + text
        while self._look <= self._length:
            end = len(text) - (self._length - self._look)
            if repeats(text[max(end - STOP_SPAN, 0) : end]):
                return True
            self._look += STOP_STEP
        self._tail = text[-STOP_SPAN:]
        return False


class EarlyStop(StoppingCriteria):
    """Ends each answer of a batch by itself. written: tokens of those that were stopped, by their row."""

    def __init__(self, prompt_tokens: int, rows: int, decode: Decode) -> None:
        self._seen = prompt_tokens
        self._prompt_tokens = prompt_tokens
        self._watches = [LoopWatch(decode) for _ in range(rows)]
        self.written: dict[int, int] = {}

    def __call__(self, input_ids: Tensor, scores: Tensor, **_: Any) -> Tensor:  # noqa: ARG002
        """Return (B,): whether each row is done. input_ids: prompts and answers so far, (B, T)."""
        if input_ids.shape[1] - self._seen >= STRIDE:
            for row, tokens in enumerate(input_ids[:, self._seen :].tolist()):
                if row not in self.written and self._watches[row].repeats(tokens):
                    self.written[row] = input_ids.shape[1] - self._prompt_tokens
            self._seen = input_ids.shape[1]
        done = torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)
        done[list(self.written)] = True
        return done
