"""A backend that returns text, as the evaluation sees it: its answers checked, its errors named."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hyocr_core.checkpoint.resolve import ResolvedModel
from hyocr_core.contract.backend import Backend, BackendConfig, PageAnswer, PageToRead
from hyocr_core.contract.decoding import Decoding
from hyocr_core.errors import HyocrError, RunError, one_line
from hyocr_core.evaluation.reading.choice import SHARED
from hyocr_core.evaluation.reading.early_stop import as_decoded
from hyocr_core.evaluation.reading.kept import BatchReading
from hyocr_core.evaluation.scores.score import Answer, Checkpoint
from hyocr_core.models.parts import stored_bytes
from hyocr_core.pages.checked import TextPage
from hyocr_core.pages.prompts import chat

NO_ANSWER = "the backend gave no answer"


@dataclass(frozen=True)
class PageText:
    """What came of a page: what was read, or the reason why nothing was."""

    index: int
    reading: BatchReading | None
    reason: str = ""


@dataclass(frozen=True)
class TextReader:
    """A backend that is ready to read a checkpoint.

    who: the backend, as messages call it. runtime: what a result says it was read by. model: what the user calls the
    checkpoint. files: those that the backend reads; None where it reads none. decoding: as the backend was told.
    """

    who: str
    runtime: str
    backend: Backend
    model: str
    files: ResolvedModel | None
    decoding: Decoding

    @property
    def options(self) -> dict[str, Any]:
        """The backend and those of its options that the answers may depend on."""
        config: BackendConfig = self.backend.config
        return {"backend": self.who} | config.model_dump(mode="json", exclude=set(SHARED))

    @property
    def identity(self) -> Mapping[str, str]:
        """Beside the checkpoint's files, what its answers depend on."""
        return {"runtime": self.runtime, **self.backend.identity}

    def read(self, pages: Sequence[TextPage], say: Callable[[str], None]) -> Iterator[PageText]:
        """Read pages, in any order; one that cannot be read does not end it. say: shows a line to the user.

        Raises RunError naming the backend for an answer that is none, and for an error that is not hyocr's.
        """
        waiting = {page.index: page.record.name for page in pages}
        before = time.perf_counter()
        for answer in self._answers([to_read(page) for page in pages], say):
            now = time.perf_counter()
            self._check(answer, waiting)
            del waiting[answer.index]
            yield self._page_text(answer, now - before)
            before = now
        yield from (PageText(index, None, NO_ANSWER) for index in waiting)

    def _answers(self, pages: Sequence[PageToRead], say: Callable[[str], None]) -> Iterator[PageAnswer]:
        try:
            yield from self.backend.read(pages, say)
        except HyocrError:
            raise
        except (Exception, SystemExit) as error:
            raise RunError(f"{self.who}: {one_line(error, named=True)}") from error

    def _check(self, answer: PageAnswer, waiting: Mapping[int, str]) -> None:
        if not isinstance(answer, PageAnswer) or answer.index not in waiting:
            raise RunError(f"{self.who}: its answer is to none of the pages that wait for one")
        problems = {
            "text": answer.text is None or isinstance(answer.text, str),
            "tokens": isinstance(answer.tokens, int) and answer.tokens >= 0,
            "seconds": answer.seconds is None or (math.isfinite(answer.seconds) and answer.seconds > 0),
        }
        for field, right in problems.items():
            if not right:
                raise RunError(f"{self.who}: {waiting[answer.index]}: {field} of its answer is wrong")

    def _page_text(self, answer: PageAnswer, waited: float) -> PageText:
        if answer.text is None:
            return PageText(answer.index, None, answer.reason or NO_ANSWER)
        seconds = waited if answer.seconds is None else answer.seconds
        read = as_decoded(Answer(answer.text, answer.tokens, answer.ended), self.decoding)
        return PageText(answer.index, BatchReading(answers=(read,), seconds=seconds, first_token=None))

    def checkpoint(self, seconds: float) -> Checkpoint:
        """What is said of the checkpoint when it has been read for this long."""
        weight_bytes, by_part = (None, {}) if self.files is None else stored_bytes(self.files.folder)
        return Checkpoint(
            model=self.model if self.files is None else self.files.repo_id or str(self.files.folder),
            revision=None if self.files is None else self.files.revision,
            subfolder=None if self.files is None else self.files.subfolder,
            runtime=self.runtime,
            forward=self.backend.forward,
            weight_bytes=weight_bytes,
            part_bytes=by_part,
            seconds=seconds,
            first_token_seconds=None,
        )


def to_read(page: TextPage) -> PageToRead:
    """A page as backends are given it."""
    messages = chat(page.record, with_answer=False)
    return PageToRead(page.index, page.record.name, messages, page.prompt, page.prompt_tokens, page.open_image)
