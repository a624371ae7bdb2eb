"""The full-precision model's own answers to calibration pages: read once, kept on disk, used by every later run."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from hyocr_core.checkpoint.durable import replacing, save_bytes, writing
from hyocr_core.checkpoint.sealed import seal, unseal
from hyocr_core.contract.config import FrozenModel
from hyocr_core.contract.decoding import Decoding
from hyocr_core.contract.page_source import Record
from hyocr_core.evaluation.reading.arriving import Decode
from hyocr_core.evaluation.reading.early_stop import as_decoded
from hyocr_core.evaluation.reading.generate import Runner
from hyocr_core.evaluation.reading.kept import default_state, take_lock
from hyocr_core.evaluation.scores.loops import cut_loop
from hyocr_core.evaluation.scores.score import Answer
from hyocr_core.models.load import load_model
from hyocr_core.outside.regular import read_regular
from hyocr_core.pages.checked import Pages, check_pages
from hyocr_core.pages.images import digest_image
from hyocr_core.pages.samples import changed_page
from hyocr_core.progress import Progress, Silent
from hyocr_core.run.job import BATCH_TOKENS, Job

if TYPE_CHECKING:
    from PIL.Image import Image

BATCH_PAGES = 32
CLOSING_TOKENS = 8
"""What the chat template may put after an answer."""

_SCHEMA = 3


class OwnAnswer(FrozenModel):
    """text: as the model wrote it, without the token that ends it. ended: not cut at the limit of tokens."""

    text: str
    ended: bool

    @property
    def usable(self) -> str:
        """The text without the repetition loop that it may end in: it would outweigh what was read."""
        return cut_loop(self.text)


def answers_folder() -> Path:
    """The folder in the user's cache where answers are kept; nothing ever deletes them, and nothing needs them."""
    return default_state().with_name("answers")


def own_answers(job: Job, digests: Mapping[str, str]) -> list[Record]:
    """The records of `job`, which have no answers, with the model's own greedy ones.

    digests: of every file that the answers depend on. The model is loaded whole, unless all answers are kept from
    before; it decodes as the run says, and an answer is at most as long as a sample may be. A page that cannot be used
    keeps no answer; whoever uses it reports why.
    Raises CalibrationError when more than a tenth of the pages, or all, cannot be used, OutputError when answers cannot
    be kept, RunError when the model computes NaN.
    """
    most = job.model.max_tokens - CLOSING_TOKENS
    pages = check_pages(job.records, job.processor, _Quiet(job.progress), max_tokens=most)
    decoding = job.decoding
    asked = [_SCHEMA, dict(digests), decoding.model_dump(), job.model.forward, job.run.max_pixels]
    key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:32]
    with _locked(answers_folder() / key, job.progress) as folder:
        answers = _read(job, pages, _Kept(folder, job.progress.say), decoding)
    _say_cut(answers, decoding.max_new_tokens, job.progress)
    seen = dict(zip((record.name for record in pages.records), pages.image_digests, strict=True))
    return [
        replace(record, answer=answers[record.name].usable, open_image=partial(_open_same, record, seen[record.name]))
        if record.name in answers
        else record
        for record in job.records
    ]


def _open_same(record: Record, sha256: str) -> Image:
    """The page that was answered, which is to be no other; sha256: of its pixels."""
    image = record.open_image()
    if digest_image(image) != sha256:
        raise changed_page(record.name)
    return image


@dataclass(frozen=True)
class _Kept:
    """Answers by the digest of their page, each a file."""

    folder: Path
    say: Callable[[str], None]

    def get(self, page: str) -> OwnAnswer | None:
        """What is kept, if it is as it was written; what is not is as good as missing."""
        path = self._path(page)
        try:
            return OwnAnswer.model_validate(unseal(read_regular(path)))
        except FileNotFoundError:
            return None
        except (OSError, ValueError):
            self.say(f"{path} is damaged: the model answers again")
            return None

    def put(self, page: str, answer: OwnAnswer) -> None:
        """Keep an answer; it is on disk, whole, when this returns."""
        path = self._path(page)
        with writing(path), replacing(path) as partial:
            save_bytes(partial, seal(answer.model_dump(mode="json")))

    def _path(self, page: str) -> Path:
        return self.folder / f"{page}.json"


def _read(job: Job, pages: Pages, kept: _Kept, decoding: Decoding) -> dict[str, OwnAnswer]:
    """Answers by the names of the records; a batch is read anew, in the same company, if one of its pages has none."""
    found = {index: answer for index, page in enumerate(pages.digests) if (answer := kept.get(page)) is not None}
    if found:
        job.progress.say(f"{len(found)} of {len(pages.records)} answers are kept from before, in {kept.folder}")
    if len(found) < len(pages.records):
        job.progress.start("answers", len(pages.records) - len(found))
    model = None
    # Special tokens that are part of an answer, such as those that mark boxes, are tokens to calibrate with.
    decode = partial(job.processor.tokenizer.decode, skip_special_tokens=False)
    for indices, room in _batches(pages, job.model.max_tokens - CLOSING_TOKENS, decoding.max_new_tokens):
        missing = [index for index in indices if index not in found]
        if not missing:
            continue
        if model is None:
            model = load_model(job.reader.folder, job.model.device, job.model.forward)
        job.progress.detail(", ".join(pages.records[index].name for index in missing))
        runner = Runner(model, job.reader.folder, decoding.model_copy(update={"max_new_tokens": room}), decode)
        for index, answer in zip(indices, _answers(runner, pages, indices, decode), strict=True):
            if index in missing:
                kept.put(pages.digests[index], answer)
                found[index] = answer
                job.progress.step(pages.records[index].name)
    return {pages.records[index].name: answer for index, answer in found.items()}


def _batches(pages: Pages, most: int, limit: int) -> Iterator[tuple[list[int], int]]:
    """Pages to read together, and how many tokens each may answer; most: tokens of a prompt and its answer."""
    for alike in pages.batches(BATCH_PAGES):
        prompt = pages.inputs(alike[0])["input_ids"].shape[1]
        room = max(min(limit, most - prompt), 1)
        step = max(BATCH_TOKENS // (prompt + room), 1)
        yield from ((alike[start : start + step], room) for start in range(0, len(alike), step))


def _answers(runner: Runner, pages: Pages, indices: Sequence[int], decode: Decode) -> Iterator[OwnAnswer]:
    prompts = runner.embed([pages.inputs(index) for index in indices])
    for tokens in runner.generate(prompts).tokens:
        ended = runner.ended(tokens)
        text = decode(tokens[:-1] if ended else tokens)
        answer = as_decoded(Answer(text, len(tokens), ended), runner.decoding)
        yield OwnAnswer(text=answer.text, ended=answer.ended)


def _say_cut(answers: Mapping[str, OwnAnswer], limit: int, progress: Progress) -> None:
    cut = [name for name, answer in answers.items() if not answer.ended]
    looping = [name for name, answer in answers.items() if answer.usable != answer.text]
    if cut:
        progress.say(
            f"{len(cut)} of {len(answers)} answers reached the limit of tokens ({limit}, or what the model takes) "
            f"and are used as far as they go; the first is that of {cut[0]}"
        )
    if looping:
        progress.say(
            f"{len(looping)} of {len(answers)} answers end in a repetition loop, of which one round is used; "
            f"the first is that of {looping[0]}"
        )


class _Quiet(Silent):
    """Shows where the work is, but says nothing: what pages cannot be used is said when they are embedded."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def start(self, phase: str, total: int) -> None:
        self._progress.start(phase, total)

    def step(self, detail: str = "") -> None:
        self._progress.step(detail)


@contextmanager
def _locked(folder: Path, progress: Progress) -> Iterator[Path]:
    """The folder, made if missing and held for this run alone; another run that holds it is waited for."""
    how = (folder, "answers", "set XDG_CACHE_HOME to another folder")
    lock = take_lock(*how)
    if lock is None:
        progress.say(f"another run lets the same model answer: waiting for it to finish ({folder})")
    while lock is None:
        time.sleep(1)
        lock = take_lock(*how)
    try:
        yield folder
    finally:
        os.close(lock)
