"""What a resumed run may go on from: the files that its journal names, each as it was when it was noted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from pathlib import Path

from hyocr_core.checkpoint.durable import writing
from hyocr_core.checkpoint.reader import digest
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.errors import CheckpointError, RunError
from hyocr_core.run.run_record import PREPARED, RunJournal


def remove_damaged(
    stage: StagedCheckpoint, journal: RunJournal, decoder: Collection[str], say: Callable[[str], None]
) -> None:
    """Delete every file of the stage that is not what the journal says; what is not there is made anew.

    Reads all of them. decoder: keys of the decoder's blocks. say: is told of every file. Raises RunError when one
    cannot be deleted.
    """
    record = journal.record
    lost = [path for path, sha256 in _noted(stage, journal) if not _is_sound(path, sha256)]
    for path in lost:
        say(f"{path.relative_to(stage.folder)} is {'damaged' if path.exists() else 'gone'}: it is made anew")
        with writing(path):
            path.unlink(missing_ok=True)
    if record.embedded is not None and not {stage.part_path(key) for key in decoder}.issuperset(lost):
        # The way to the decoder's input leads through what was lost.
        record.embedded = None
        journal.save()


def is_done(stage: StagedCheckpoint, journal: RunJournal, key: str) -> bool:
    """Whether this block is quantized and on the disk."""
    return key in journal.record.blocks and stage.part_path(key).is_file()


def check_same(path: Path, before: str | None, after: str | None) -> None:
    """Raise RunError when a file that is made anew is not what it was; before: its digest, None if it is the first."""
    if before not in (None, after):
        raise RunError(
            f"{path} was lost, and made anew it is another: what was made of it does not fit any more; "
            f"delete {path.parent.parent} to start anew"
        )


def check_parts(stage: StagedCheckpoint, journal: RunJournal) -> None:
    """Raise RunError for a part that is no longer what was written; the stage then stays resumable."""
    for path, sha256 in _parts(stage, journal):
        if not _is_sound(path, sha256):
            raise RunError(f"{path} was damaged after it was written: the same command makes it anew")


def _noted(stage: StagedCheckpoint, journal: RunJournal) -> Iterator[tuple[Path, str]]:
    """Every file that the journal names, and its digest."""
    yield from _parts(stage, journal)
    for name, sha256 in journal.record.inputs.items():
        yield stage.folder / name, sha256


def _parts(stage: StagedCheckpoint, journal: RunJournal) -> Iterator[tuple[Path, str]]:
    prepared = journal.record.prepared
    if prepared is not None and prepared.sha256 is not None:
        yield stage.part_path(PREPARED), prepared.sha256
    for key, block in journal.record.blocks.items():
        yield stage.part_path(key), block.sha256


def _is_sound(path: Path, sha256: str) -> bool:
    try:
        return path.is_file() and digest(path) == sha256
    except CheckpointError:
        return False
