"""Training batches: rendered lines, their token sequences, and the targets of the auxiliary losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from fast_forward import COLUMNS, IMAGE_TOKENS, Rope
from lines import IGNORE, MAX_CHARS, SLOT, SLOTS, Labels, Line, random_line, slot_labels
from torch import Tensor
from transformers import HunYuanVLForConditionalGeneration, PreTrainedTokenizerFast

from hyocr_core.contract.backend import Forward
from hyocr_core.runtimes.forward import set_forward
from hyocr_core.testing.layout import ASSISTANT, BOS, IMAGE, IMAGE_END, IMAGE_START, PAD, SYSTEM_END, USER, token_id


@dataclass(frozen=True)
class Prompt:
    """The tokens before the answer, in the chat template's layout, with or without an (empty) system turn."""

    ids: list[int]
    image_start: int

    @staticmethod
    def build(tokenizer: PreTrainedTokenizerFast, question: str, system: bool) -> Prompt:
        """Lay out the prompt of one line. question: one token of the vocabulary."""
        head = [BOS, SYSTEM_END, IMAGE_START] if system else [BOS, IMAGE_START]
        tokens = [*head, *[IMAGE] * IMAGE_TOKENS, IMAGE_END, question, USER]
        return Prompt([token_id(tokenizer, token) for token in tokens], len(head))


@dataclass(frozen=True)
class Batch:
    """pixels [B, 32, 256]; ids and answers [B, T]; slots [B, 64]; counts [B, 8]; where [B, T]."""

    pixels: Tensor
    ids: Tensor
    answers: Tensor
    slots: Tensor
    counts: Tensor
    where: Tensor


def _answer_row(tokenizer_ids: dict[str, int], line: Line, stop: int) -> tuple[list[int], list[int]]:
    """Token after each prefix of the answer, and the slot in which that next character lies (SLOTS for the end)."""
    tokens = [*(tokenizer_ids[char] for char in line.text), stop]
    where = [*(int(centre / SLOT) for centre in line.centres), SLOTS]
    return tokens, where


class BatchMaker:
    """Draws a batch from the seed, the step and the worker alone, so that a resumed run sees the same lines."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, seed: int, worker: int, size: int) -> None:
        self._seed, self._worker, self._size = seed, worker, size
        self._chars = {char: tokenizer.encode(char)[0] for char in map(chr, range(32, 127))}
        self._stop = token_id(tokenizer, ASSISTANT)
        self._pad = token_id(tokenizer, PAD)

    def make(self, step: int, prompt: Prompt, max_chars: int = MAX_CHARS, split: str = "train") -> Batch:
        """Render and encode the batch of a step."""
        rng = np.random.default_rng([self._seed, step, self._worker])
        drawn = [random_line(rng, split, max_chars) for _ in range(self._size)]
        rows = [_answer_row(self._chars, line, self._stop) for line in drawn]
        longest = max(len(tokens) for tokens, _ in rows)
        answers = np.full((len(rows), longest), IGNORE, dtype=np.int64)
        where = answers.copy()
        ids = np.full((len(rows), len(prompt.ids) + longest - 1), self._pad, dtype=np.int64)
        ids[:, : len(prompt.ids)] = prompt.ids
        for index, (tokens, places) in enumerate(rows):
            answers[index, : len(tokens)] = tokens
            where[index, : len(places)] = places
            ids[index, len(prompt.ids) : len(prompt.ids) + len(tokens) - 1] = tokens[:-1]
        slots = np.stack([slot_labels(line) for line in drawn])
        counts = np.stack([_counts(line) for line in drawn])
        pixels = np.stack([line.pixels for line in drawn])
        return Batch(*(torch.from_numpy(array) for array in (pixels, ids, answers, slots, counts, where)))


def _counts(line: Line) -> Labels:
    """How many characters are centred left of each image column."""
    edges = np.arange(COLUMNS) * SLOT * (SLOTS // COLUMNS)
    return np.asarray((np.asarray(line.centres)[None] < edges[:, None]).sum(axis=1), dtype=np.int64)


def rope_for(model: HunYuanVLForConditionalGeneration, prompt: Prompt, dtype: torch.dtype, forward: Forward) -> Rope:
    """Rotary factors for the prompt and the longest answer, from the model's own position rule."""
    set_forward(model, forward)
    ids = torch.tensor([prompt.ids + [0] * (MAX_CHARS + 1)])
    kinds = (ids == model.config.image_token_id).int()
    grid = torch.tensor([[1, 2, 2 * COLUMNS]])
    positions, _ = model.model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grid)
    cos, sin = model.model.language_model.rotary_emb(torch.zeros(1, dtype=torch.float32), positions)
    return Rope(cos[0].to(dtype), sin[0].to(dtype), forward)


def cut(rope: Rope, length: int) -> Rope:
    """The factors of the first tokens."""
    return Rope(rope.cos[:length], rope.sin[:length], rope.forward)
