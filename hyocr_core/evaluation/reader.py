"""Checkpoints that read batches of pages, and what they wrote, as it is kept on disk."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.resolve import ResolvedModel
from hyocr_core.errors import RunError
from hyocr_core.evaluation.compare import divergence_of_states
from hyocr_core.evaluation.metrics import ends_in_loop, normalize
from hyocr_core.evaluation.result import Runtime
from hyocr_core.evaluation.runner import Prompts, Runner
from hyocr_core.evaluation.score import Answer, Checkpoint, Gap
from hyocr_core.evaluation.state import BatchReading, BatchRecord
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import load_model, open_weights
from hyocr_core.models.parts import part_bytes
from hyocr_core.numerics import is_finite

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class _Read:
    """A batch as one checkpoint read it. kept: all that outlives it."""

    prompts: Prompts
    tokens: list[list[int]]
    kept: BatchReading


class Reader:
    """One checkpoint in memory."""

    def __init__(self, source: ResolvedModel, tokenizer: Any, device: torch.device, max_new_tokens: int | None) -> None:
        self.runner = Runner(load_model(source.folder, device), source.folder, max_new_tokens)
        self._source = source
        self._tokenizer = tokenizer

    def read(self, inputs: Sequence[dict[str, Tensor]]) -> _Read:
        """Read one batch of pages of one size."""
        started = time.perf_counter()
        prompts = self.runner.embed(inputs)
        written = self.runner.generate(prompts)
        ended = time.perf_counter()
        answers = tuple(self._answer(tokens) for tokens in written.tokens)
        kept = BatchReading(answers=answers, seconds=ended - started, first_token=written.first_token_at - started)
        return _Read(prompts, written.tokens, kept)

    def _answer(self, tokens: Sequence[int]) -> Answer:
        text = self._tokenizer.decode(tokens, skip_special_tokens=True)
        return Answer(normalize(text), len(tokens), self.runner.ended(tokens), ends_in_loop(text))

    def checkpoint(self, readings: Sequence[BatchReading]) -> Checkpoint:
        """What is said of the checkpoint when `readings` are all its batches."""
        folder = self._source.folder
        weights = open_weights(folder)
        runtime: Runtime = "dequant" if isinstance(weights, DequantizedCheckpoint) else "transformers"
        pages = sum(len(reading.answers) for reading in readings)
        return Checkpoint(
            model=self._source.repo_id or str(folder),
            revision=self._source.revision,
            runtime=runtime,
            weight_bytes=sum(path.stat().st_size for path in folder.glob("*.safetensors")),
            part_bytes=part_bytes(HunYuanVL(weights, torch.device("cpu")), CheckpointReader(folder).tensors),
            seconds=sum(reading.seconds for reading in readings),
            first_token_seconds=sum(reading.first_token * len(reading.answers) for reading in readings) / pages,
        )


def read_batch(pages: Sequence[int], inputs: Sequence[dict[str, Tensor]], readers: Sequence[Reader]) -> BatchRecord:
    """Let the model and, if there is one, the baseline read a batch, and measure the gap between the two.

    pages: indices of what `inputs` holds.
    """
    done = [reader.read(inputs) for reader in readers]
    gaps: list[Gap] = []
    if len(readers) > 1:
        gaps = _gaps(readers[1].runner, done[1].prompts, readers[0].runner, done[0].prompts, done[1].tokens)
    return BatchRecord(pages=tuple(pages), readings=tuple(each.kept for each in done), gaps=tuple(gaps))


def _gaps(
    rival: Runner, rival_prompts: Prompts, runner: Runner, prompts: Prompts, answers: Sequence[Sequence[int]]
) -> list[Gap]:
    """Force both models along the rival's answers."""
    found = divergence_of_states(
        rival.forced_states(rival_prompts, answers),
        runner.forced_states(prompts, answers),
        (rival.logits, runner.logits),
    )
    if not is_finite(found.kl):
        raise RunError(f"{runner.folder}: its logits are NaN or infinite along the answers of {rival.folder}")
    gaps, start = [], 0
    for answer in answers:
        own = slice(start, start := start + len(answer))
        gaps.append(Gap(len(answer), int(found.agrees[own].sum()), float(found.kl[own].double().sum())))
    return gaps
