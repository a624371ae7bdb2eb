"""The pages an evaluation has read so far, on disk, so that an interrupted one goes on instead of beginning anew."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from pydantic import Field, model_validator

from hyocr_core.checkpoint.durable import replacing, save_bytes, try_lock, writing
from hyocr_core.checkpoint.sealed import seal, unseal
from hyocr_core.contract.config import FrozenModel
from hyocr_core.errors import OutputError
from hyocr_core.evaluation.scores.result import Diagnosis, Role
from hyocr_core.evaluation.scores.score import Answer, Gap
from hyocr_core.outside.regular import read_regular
from hyocr_core.progress import Progress
from hyocr_core.ranks.ranks import Ranks


class BatchReading(FrozenModel):
    """What one checkpoint wrote for a batch; seconds of the whole, and from its start to the first token.

    first_token: None where the runtime does not say.
    """

    answers: tuple[Answer, ...]
    seconds: float = Field(gt=0)
    first_token: float | None


class BatchRecord(FrozenModel):
    """All that is kept of a batch; answers and gaps are in the order of `pages`, the indices of its pages.

    gaps: of those that were compared with the baseline token by token. diagnosis: made on the first batch.
    """

    pages: tuple[int, ...]
    readings: dict[Role, BatchReading]
    gaps: dict[Role, tuple[Gap, ...]] = Field(default_factory=dict)
    diagnosis: Diagnosis | None = None

    @model_validator(mode="after")
    def _one_for_each_page(self) -> Self:
        counts = [len(reading.answers) for reading in self.readings.values()]
        counts += [len(gaps) for gaps in self.gaps.values()]
        if not self.readings or any(count != len(self.pages) for count in counts):
            raise ValueError("the counts do not fit")
        return self


class Kept:
    """The batches read so far by key, each also a file of its own, so that keeping one takes no longer than another.

    folder: None keeps them in memory only. whole: whether nothing is missing when the evaluation ends; otherwise what
    is kept stays.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder
        self.batches: dict[str, BatchRecord] = {}
        self.whole = True

    def load(self, say: Callable[[str], None]) -> None:
        """Take what an interrupted evaluation left, all but files that were damaged: `say` is told of each."""
        for path in sorted(self._files()):
            try:
                self.batches[path.stem] = BatchRecord.model_validate(unseal(read_regular(path)))
            except (OSError, ValueError):
                say(f"{path} is damaged: its pages are read again")

    def has(self, key: str, pages: Sequence[int]) -> bool:
        """Whether a batch of these pages is kept under this key."""
        return key in self.batches and self.batches[key].pages == tuple(pages)

    def forget(self) -> None:
        """Delete what an interrupted evaluation left."""
        for path in self._files():
            path.unlink()

    def add(self, key: str, batch: BatchRecord) -> None:
        """Note a batch; it is on disk when this returns. Raises RunError when it cannot be written."""
        if self._folder is not None:
            path = self._folder / f"{key}.json"
            with writing(path), replacing(path) as partial:
                save_bytes(partial, seal(batch.model_dump(mode="json")))
        self.batches[key] = batch

    def follow(self, keys: Sequence[str], ranks: Ranks) -> None:
        """Take these batches from the first of several processes, which keeps them for all."""
        if ranks.size > 1:
            told = ranks.told(lambda: {key: self.batches[key].model_dump(mode="json") for key in keys})
            self.batches |= {key: BatchRecord.model_validate(batch) for key, batch in told.items()}

    def _files(self) -> list[Path]:
        return [] if self._folder is None else list(self._folder.glob("batch-*.json"))


def default_state() -> Path:
    """The folder in the user's cache (XDG Base Directory Specification) where evaluations keep what they read.

    Raises OutputError for a user without one.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "")
    try:
        return (Path(cache) if cache.startswith("/") else Path.home() / ".cache") / "hyocr" / "eval"
    except RuntimeError as error:
        raise OutputError("there is no home folder to keep pages in: set XDG_CACHE_HOME, or give --state") from error


@contextmanager
def keeping(root: Path | None, fingerprint: Mapping[str, Any], *, resume: bool, progress: Progress) -> Iterator[Kept]:
    """Keep batches in a folder of `root`, which is deleted when the body succeeds or fails before its first batch.

    root: None keeps nothing.
    fingerprint: everything that what is read depends on. Another one has another folder, so that a changed
    checkpoint, page or option never meets pages that were read before the change.
    resume: begin with the batches of an interrupted evaluation, if there was one.
    Raises OutputError when the folder cannot be used, RunError when it cannot be written later.
    """
    if root is None:
        yield Kept(None)
        return
    key = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:32]
    folder = root / key
    lock = take_lock(folder, "pages", "give another folder with --state")
    if lock is None:
        progress.say(f"the same evaluation runs already: what this one reads is not kept (in {folder})")
        yield Kept(None)
        return
    finished = False
    try:
        kept = Kept(folder)
        if resume:
            kept.load(progress.say)
        else:
            kept.forget()
        try:
            yield kept
            finished = kept.whole
        finally:
            if finished or not kept.batches:
                shutil.rmtree(folder, ignore_errors=True)
    finally:
        os.close(lock)


def take_lock(folder: Path, kept: str, otherwise: str) -> int | None:
    """Make and lock a folder of the user's cache; return the lock's descriptor, None when another process holds it.

    kept: what it is for. otherwise: how the user chooses another one. Raises OutputError when it cannot be used.
    """
    try:
        # Pages may be confidential.
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return try_lock(folder / "lock")
    except OSError as error:
        raise OutputError(f"cannot keep {kept} in {folder}: {error.strerror}; {otherwise}") from error
