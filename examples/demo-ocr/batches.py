"""Training batches: rendered pages, their token sequences, and the targets of the auxiliary losses."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from fast_forward import Rope
from lines import IGNORE, Labels, Page, random_page, slot_labels
from readers import LINE_HEIGHT, SLOT, Reader
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
    def build(tokenizer: PreTrainedTokenizerFast, reader: Reader, question: str, system: bool) -> Prompt:
        """Lay out the prompt of one page. question: one token of the vocabulary."""
        head = [BOS, SYSTEM_END, IMAGE_START] if system else [BOS, IMAGE_START]
        tokens = [*head, *[IMAGE] * reader.image_tokens, IMAGE_END, question, USER]
        return Prompt([token_id(tokenizer, token) for token in tokens], len(head))


@dataclass(frozen=True)
class Batch:
    """pixels [B, height, width]; ids, answers, where [B, T]; slots [B, lines * slots]; counts [B, lines * columns]."""

    pixels: Tensor
    ids: Tensor
    answers: Tensor
    slots: Tensor
    counts: Tensor
    where: Tensor


class BatchMaker:
    """Draws a batch from the seed, the step and the worker alone, so that a resumed run sees the same pages."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast, reader: Reader, seed: int, worker: int, size: int) -> None:
        self._reader, self._seed, self._worker, self._size = reader, seed, worker, size
        self._bytes = {char: tokenizer.encode(char) for char in reader.alphabet + "\n"}
        self._stop = token_id(tokenizer, ASSISTANT)
        self._pad = token_id(tokenizer, PAD)

    def make(self, step: int, prompt: Prompt) -> Batch:
        """Render and encode the batch of a step."""
        rng = np.random.default_rng([self._seed, step, self._worker])
        drawn = [random_page(rng, self._reader, "train") for _ in range(self._size)]
        rows = [self._answer(page) for page in drawn]
        longest = max(len(tokens) for tokens, _ in rows)
        answers = np.full((len(rows), longest), IGNORE, dtype=np.int64)
        where = answers.copy()
        ids = np.full((len(rows), len(prompt.ids) + longest - 1), self._pad, dtype=np.int64)
        ids[:, : len(prompt.ids)] = prompt.ids
        for index, (tokens, places) in enumerate(rows):
            answers[index, : len(tokens)] = tokens
            where[index, : len(places)] = places
            ids[index, len(prompt.ids) : len(prompt.ids) + len(tokens) - 1] = tokens[:-1]
        slots = np.stack([slot_labels(self._reader, page) for page in drawn])
        counts = np.stack([self._counts(page) for page in drawn])
        pixels = np.stack([page.pixels for page in drawn])
        return Batch(*(torch.from_numpy(array) for array in (pixels, ids, answers, slots, counts, where)))

    def _answer(self, page: Page) -> tuple[list[int], list[int]]:
        """Token after each prefix of the answer, and the slot of its character; past all slots if a line ends there."""
        tokens: list[int] = []
        where: list[int] = []
        end = self._reader.lines * self._reader.slots
        newline = self._bytes["\n"]
        for index, (line, centres) in enumerate(zip(page.lines, page.centres, strict=True)):
            for char, centre in zip(line, centres, strict=True):
                tokens += self._bytes[char]
                where += [index * self._reader.slots + int(centre / SLOT)] * len(self._bytes[char])
            tokens += newline if index + 1 < len(page.lines) else [self._stop]
            where.append(end)
        return tokens, where

    def _counts(self, page: Page) -> Labels:
        """How many tokens of the answer lie before each image column, in the order of reading."""
        edges = np.arange(self._reader.columns) * LINE_HEIGHT
        before, counts = 0, []
        for line, centres in zip(page.lines, page.centres, strict=True):
            sizes = np.asarray([len(self._bytes[char]) for char in line])
            counts.append(before + (sizes * (np.asarray(centres)[None] < edges[:, None])).sum(axis=1))
            before += int(sizes.sum()) + len(self._bytes["\n"])
        return np.concatenate(counts)


def rope_for(
    model: HunYuanVLForConditionalGeneration, reader: Reader, prompt: Prompt, dtype: torch.dtype, forward: Forward
) -> Rope:
    """Rotary factors for the prompt and the longest answer, from the model's own position rule."""
    set_forward(model, forward)
    ids = torch.tensor([prompt.ids + [0] * (reader.max_tokens + 1)])
    kinds = (ids == model.config.image_token_id).int()
    grid = torch.tensor([[1, *reader.grid]])
    positions, _ = model.model.get_rope_index(ids, mm_token_type_ids=kinds, image_grid_thw=grid)
    cos, sin = model.model.language_model.rotary_emb(torch.zeros(1, dtype=torch.float32), positions)
    return Rope(cos[0].to(dtype), sin[0].to(dtype), forward)


def cut(rope: Rope, length: int) -> Rope:
    """The factors of the first tokens."""
    return Rope(rope.cos[:length], rope.sin[:length], rope.forward)
