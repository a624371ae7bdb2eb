"""Checkpoints that read batches of pages, and what they wrote, as it is kept on disk."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.resolve import ResolvedModel
from hyocr_core.contract.backend import Forward
from hyocr_core.contract.decoding import Decoding
from hyocr_core.errors import RunError
from hyocr_core.evaluation.reading.diagnose import Side, diagnose
from hyocr_core.evaluation.reading.early_stop import as_decoded
from hyocr_core.evaluation.reading.generate import Prompts, Runner
from hyocr_core.evaluation.reading.kept import BatchReading, BatchRecord
from hyocr_core.evaluation.scores.divergence import Divergence, divergence_of_states
from hyocr_core.evaluation.scores.result import Role, Runtime
from hyocr_core.evaluation.scores.score import Answer, Checkpoint, Gap
from hyocr_core.kit.checks import is_finite
from hyocr_core.models.load import Weights, embed_alike, load_whole, share_equal
from hyocr_core.models.parts import stored_bytes

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """A checkpoint that is to read.

    source: under what name its numbers go. weights: what it reads with. stored: the folder whose files hold that, or
    would: weights rounded to nearest in a checkpoint's format take as much as that checkpoint. native: Transformers
    itself loads it, even if it is quantized. forward: what it computes.
    """

    source: ResolvedModel
    weights: Weights
    stored: Path
    native: bool = False
    forward: Forward = "reference"

    @property
    def runtime(self) -> Runtime:
        """What gives its numbers."""
        return "transformers" if self.native or isinstance(self.weights, CheckpointReader) else "dequant"


@dataclass(frozen=True)
class _Read:
    """A batch as one checkpoint read it. seconds: of putting it into `prompts`. kept: all that outlives the batch."""

    prompts: Prompts
    seconds: float
    tokens: list[list[int]]
    kept: BatchReading


class Reader:
    """One checkpoint in memory."""

    def __init__(
        self,
        entry: Entry,
        tokenizer: Any,
        device: torch.device,
        decoding: Decoding,
        others: Sequence[Reader] = (),
    ) -> None:
        """others: readers in memory, which lend the parameters that are the same."""
        self.model = load_whole(entry.weights, device, entry.forward, native=entry.native)
        for other in others:
            share_equal(self.model, other.model)
        self._decode = partial(tokenizer.decode, skip_special_tokens=True)
        self.runner = Runner(self.model.skeleton, entry.weights.folder, decoding, self._decode)
        self._entry = entry

    def read(
        self,
        inputs: Sequence[dict[str, Tensor]],
        seen: Sequence[tuple[Reader, _Read]] = (),
        told: Callable[[str], None] | None = None,
    ) -> _Read:
        """Read one batch of pages of one size.

        told: given the text of a single page, piece by piece as it is written.
        seen: the same batch as others have read it. What the same vision tower has seen is not looked at again; the
        time that it took counts for every reader.
        """
        started = time.perf_counter()
        alike = next((read for other, read in seen if embed_alike(self.model, other.model)), None)
        prompts = self.runner.embed(inputs) if alike is None else alike.prompts
        embedded = time.perf_counter()
        seconds = embedded - started if alike is None else alike.seconds
        written = self.runner.generate(prompts, told)
        answers = tuple(self._answer(tokens) for tokens in written.tokens)
        kept = BatchReading(
            answers=answers,
            seconds=seconds + time.perf_counter() - embedded,
            first_token=seconds + written.first_token_at - embedded,
        )
        return _Read(prompts, seconds, written.tokens, kept)

    def _answer(self, tokens: Sequence[int]) -> Answer:
        written = Answer(self._decode(tokens), len(tokens), self.runner.ended(tokens))
        return as_decoded(written, self.runner.decoding)

    def checkpoint(self, readings: Sequence[BatchReading]) -> Checkpoint:
        """What is said of the checkpoint when `readings` are all its batches."""
        source, folder = self._entry.source, self._entry.stored
        weight_bytes, by_part = stored_bytes(folder)
        pages = sum(len(reading.answers) for reading in readings)
        return Checkpoint(
            model=source.repo_id or str(source.folder),
            revision=source.revision,
            subfolder=source.subfolder,
            runtime=self._entry.runtime,
            forward=self._entry.forward,
            weight_bytes=weight_bytes,
            part_bytes=by_part,
            seconds=sum(reading.seconds for reading in readings),
            first_token_seconds=sum((reading.first_token or 0) * len(reading.answers) for reading in readings) / pages,
        )


def read_batch(
    pages: Sequence[int], inputs: Sequence[dict[str, Tensor]], readers: Mapping[Role, Reader], *, diagnosed: bool
) -> BatchRecord:
    """Let every reader read a batch, and measure the gap between the baseline, if there is one, and the others.

    pages: indices of what `inputs` holds. diagnosed: find out, too, where the model departs from the baseline.
    """
    done = _read_by_all(inputs, readers)
    readings = {role: read.kept for role, read in done.items()}
    if "baseline" not in readers:
        return BatchRecord(pages=tuple(pages), readings=readings)
    diagnosis = None
    alike = "model" in readers and readers["model"].model.forward == readers["baseline"].model.forward
    if diagnosed and alike:
        baseline, model = (
            Side(readers[role].model, readers[role].runner, done[role].prompts) for role in ("baseline", "model")
        )
        diagnosis = diagnose(baseline, model, inputs, done["baseline"].tokens)
    return BatchRecord(pages=tuple(pages), readings=readings, gaps=_gaps(readers, done), diagnosis=diagnosis)


def read_page(
    inputs: dict[str, Tensor], readers: Mapping[Role, Reader], told: Callable[[str], None] | None
) -> dict[Role, Answer]:
    """Let every reader read one page, and measure nothing. told: as in `Reader.read`, of the first reader."""
    return {role: read.kept.answers[0] for role, read in _read_by_all([inputs], readers, told).items()}


def _read_by_all(
    inputs: Sequence[dict[str, Tensor]],
    readers: Mapping[Role, Reader],
    told: Callable[[str], None] | None = None,
) -> dict[Role, _Read]:
    done: dict[Role, _Read] = {}
    for role, reader in readers.items():
        seen = [(readers[other], read) for other, read in done.items()]
        done[role] = reader.read(inputs, seen, None if seen else told)
    return done


def _gaps(readers: Mapping[Role, Reader], done: Mapping[Role, _Read]) -> dict[Role, tuple[Gap, ...]]:
    """Force every model along the baseline's answers."""
    rival, answers = readers["baseline"].runner, done["baseline"].tokens
    expected = rival.forced_states(done["baseline"].prompts, answers)
    gaps: dict[Role, tuple[Gap, ...]] = {}
    for role in (role for role in readers if role != "baseline"):
        runner = readers[role].runner
        states = runner.forced_states(done[role].prompts, answers)
        found = divergence_of_states(expected, states, (rival.logits, runner.logits))
        if not is_finite(found.kl):
            raise RunError(f"{runner.folder}: its logits are NaN or infinite along the answers of {rival.folder}")
        gaps[role] = tuple(_by_answer(found, answers))
    return gaps


def _by_answer(found: Divergence, answers: Sequence[Sequence[int]]) -> Iterator[Gap]:
    start = 0
    for answer in answers:
        own = slice(start, start := start + len(answer))
        yield Gap(len(answer), int(found.agrees[own].sum()), float(found.kl[own].double().sum()))
