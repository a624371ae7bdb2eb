"""How far a quantized checkpoint is from the full-precision one, measured in one process for many of them.

The full-precision model reads once for all; the result is that of `hyocr eval --baseline`, in a small part of its time.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hyocr_core.contract.backend import Forward
from hyocr_core.evaluation.reading.generate import Prompts, Runner
from hyocr_core.evaluation.scores.chosen_metrics import choose_metrics
from hyocr_core.evaluation.scores.divergence import divergence_of_states
from hyocr_core.evaluation.scores.measures import PageTexts, measurable, measure_named
from hyocr_core.evaluation.scores.rates import edit_distances, micro_rate
from hyocr_core.models.load import load_model
from hyocr_core.models.own_decoding import own_decoding
from hyocr_core.pages.checked import check_pages
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.sources import open_source, select
from hyocr_core.progress import Silent
from hyocr_core.settings.eval_config import EvalConfig

CPU = torch.device("cpu")
BATCH = 64


@dataclass(frozen=True)
class Distance:
    """kl: nats per token, of KL(baseline || checkpoint). agreement: the share of tokens that both find likeliest."""

    kl: float
    agreement: float


@dataclass(frozen=True)
class Score:
    """What answers are worth. cer: a fraction. parts: metrics by part, those that follow from the task."""

    cer: float
    parts: Mapping[str, float]


@dataclass(frozen=True)
class _Read:
    """A batch, as the baseline reads it. inputs: of the model. transcripts: what is written there."""

    inputs: list[dict[str, torch.Tensor]]
    prompts: Prompts
    tokens: list[list[int]]
    states: torch.Tensor
    transcripts: list[str]


class Baseline:
    """The full-precision model's answers to held-out pages, and the states from which it wrote them.

    Weights are as they are stored, unpacked to the dtype to which runtimes unpack them, and computed with in `dtype`:
    the noise of bf16 arithmetic is as large as what sets good 4-bit checkpoints apart. What the vision tower has seen
    is given to every checkpoint, unless that is to look itself. task: what the pages ask.
    """

    def __init__(
        self,
        checkpoint: Path,
        data: Path,
        samples: int | None,
        forward: Forward,
        dtype: torch.dtype,
        task: str | None = None,
    ) -> None:
        processor = load_processor(checkpoint)
        self._tokenizer, self._forward, self._dtype = processor.tokenizer, forward, dtype
        self._runner = self.open(checkpoint)
        pages = check_pages(select(open_source(str(data)), samples, 0), processor, Silent())
        self._read: list[_Read] = []
        for indices in pages.batches(BATCH):
            inputs = [pages.inputs(index) for index in indices]
            prompts = self._runner.embed(inputs)
            tokens = self._runner.generate(prompts).tokens
            states = self._runner.forced_states(prompts, tokens)
            transcripts = [pages.records[index].answer or "" for index in indices]
            self._read.append(_Read(inputs, prompts, tokens, states, transcripts))
        chosen = choose_metrics(EvalConfig(model=str(checkpoint), data=str(data), task=task))
        self._metrics = measurable(chosen, pages.records, Silent().say)
        self.score = self._score(read.tokens for read in self._read)

    def open(self, folder: Path) -> Runner:
        """A checkpoint, to be measured in any way."""
        model: Any = load_model(folder, CPU, self._forward)
        decoding = own_decoding(folder, model.config.text_config, self._tokenizer)
        return Runner(model.to(self._dtype), folder, decoding, self._tokenizer.decode)

    def compare(self, other: Runner, *, looks: bool = False) -> Distance:
        """Force a checkpoint along the baseline's answers; looks: through its own vision tower."""
        heads = (self._runner.logits, other.logits)
        seen = ((read, other.embed(read.inputs) if looks else read.prompts) for read in self._read)
        parts = [
            divergence_of_states(read.states, other.forced_states(prompts, read.tokens), heads)
            for read, prompts in seen
        ]
        kl, agrees = (torch.cat([getattr(part, name) for part in parts]).double() for name in ("kl", "agrees"))
        return Distance(kl.mean().item(), agrees.mean().item())

    def read(self, other: Runner) -> Score:
        """A checkpoint's own greedy answers."""
        return self._score(other.generate(read.prompts).tokens for read in self._read)

    def _score(self, answers: Iterable[list[list[int]]]) -> Score:
        transcripts = [text for read in self._read for text in read.transcripts]
        texts = [self._tokenizer.decode(tokens, skip_special_tokens=True) for batch in answers for tokens in batch]
        cer = micro_rate(edit_distances(transcripts, texts), list(map(len, transcripts)))
        pages = PageTexts(list(map(str, range(len(texts)))), texts, transcripts, seed=0)
        together = {name: part.together for name, part in measure_named(self._metrics, pages).items()}
        return Score(cer, {name: value.value for name, value in together.items() if value is not None})
