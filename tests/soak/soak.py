"""Kill a run, spoil what it left, resume it, and hold all that comes of it against an undisturbed one."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from hyocr_core.checkpoint.writer import stage_folder
from tests.soak.commands import WORK, Ended, run_command
from tests.soak.comparing import differences, left_behind
from tests.soak.damage import damage_one
from tests.soak.scenarios import command

AGAIN = 0.3
"""How often a resumed run is killed too."""
SPOILT = 0.4
"""How often a file is damaged before a run is resumed."""


@dataclass
class Counts:
    """What was done, and what was found."""

    at_operations: int = 0
    at_random: int = 0
    resumptions: int = 0
    damaged: int = 0
    refused: int = 0
    differences: list[str] = field(default_factory=list)

    def __add__(self, other: Counts) -> Counts:
        return Counts(*(mine + theirs for mine, theirs in zip(vars(self).values(), vars(other).values(), strict=True)))

    def __str__(self) -> str:
        return (
            f"{self.at_operations + self.at_random} kills ({self.at_operations} at operations on files, "
            f"{self.at_random} at random), {self.resumptions} resumptions, {self.damaged} files damaged, "
            f"{self.refused} journals refused, {len(self.differences)} differences"
        )


@dataclass(frozen=True)
class Straight:
    """An undisturbed run, and what it left."""

    folder: Path
    ended: Ended
    left: dict[str, bytes]


@dataclass
class Soak:
    """One scenario.

    model: the checkpoint to quantize. folder: for its trials; one that goes wrong is left there. spoils: whether files
    are damaged.
    """

    name: str
    model: Path
    folder: Path
    random: Random
    spoils: bool = True
    counts: Counts = field(default_factory=Counts)

    def run(self, kills: int, *, operations: slice | None = None) -> Counts:
        """Kill about so many times, at operations spread over the whole run and at random moments, in turn.

        operations: kill once at each of these operations of the run instead.
        """
        straight = self._run_straight()
        for number, (at, after) in enumerate(self._moments(straight, kills, operations)):
            self._try(self.folder / f"trial-{number}", straight, at, after)
        return self.counts

    def _run_straight(self) -> Straight:
        folder = self._begin(self.folder / "straight")
        ended = run_command(command(self.name, self.model, folder), folder)
        left = left_behind(folder, folder)
        if ended.code not in (0, 1) or not any(name.endswith(".safetensors") for name in left):
            raise AssertionError(f"{self.name} does not run: {ended.said}")
        return Straight(folder, ended, left)

    def _moments(
        self, straight: Straight, kills: int, operations: slice | None
    ) -> Iterator[tuple[int | None, float | None]]:
        """The operation, or the second, to kill at, until it was done often enough."""
        if operations is not None:
            yield from ((at, None) for at in range(straight.ended.operations)[operations])
            return
        first = max(kills // 2, 1)
        turn = 0
        while self.counts.at_operations + self.counts.at_random < kills:
            if turn % 2 == 0:
                share = (turn // 2 % first + self.random.random()) / first
                yield int(share * straight.ended.operations), None
            else:
                yield None, self.random.uniform(0, straight.ended.seconds)
            turn += 1

    def _try(self, folder: Path, straight: Straight, at: int | None, after: float | None) -> None:
        self._begin(folder)
        arguments = command(self.name, self.model, folder)
        ended = self._count(run_command(arguments, folder, kill_at=at, kill_after=after), at)
        while ended.code is None:
            ended = self._resume(arguments, folder, straight)
        wrong = differences(straight.left, left_behind(folder, straight.folder))
        if ended.code != straight.ended.code:
            wrong.append(f"exit code {ended.code}: {ended.said.strip()[-300:]}")
        if wrong:
            self.counts.differences += [f"{self.name}, killed at {at or after} in {folder}: {line}" for line in wrong]
        else:
            shutil.rmtree(folder)

    def _resume(self, arguments: list[str], folder: Path, straight: Straight) -> Ended:
        work = folder / WORK
        stage = stage_folder(work / "out")
        mend = self._spoil(work, stage)
        begun = (stage / "journal.json").is_file() or any(work.glob("out*"))
        resumed = [*arguments, "--resume"] if begun else arguments
        at = self.random.randrange(straight.ended.operations) if self.random.random() < AGAIN else None
        self.counts.resumptions += begun
        ended = self._count(run_command(resumed, folder, kill_at=at), at)
        if mend is not None and ended.code == 2 and "journal.json is unreadable" in ended.said:
            self.counts.refused += 1
            mend()
            return Ended(None, 0, 0, "")
        return ended

    def _spoil(self, work: Path, stage: Path) -> Callable[[], object] | None:
        """Damage a file of what is kept for resuming; return what undoes it."""
        if not self.spoils or self.random.random() > SPOILT:
            return None
        folder = self.random.choice([path for path in (stage, work / "cache") if path.is_dir()] or [stage])
        before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        path = damage_one(folder, self.random)
        if path is None or path.read_bytes() == before[path]:
            return None
        self.counts.damaged += 1
        return lambda: path.write_bytes(before[path])

    def _count(self, ended: Ended, at: int | None) -> Ended:
        if ended.code is None:
            self.counts.at_operations += at is not None
            self.counts.at_random += at is None
        return ended

    def _begin(self, folder: Path) -> Path:
        (folder / WORK).mkdir(parents=True)
        return folder
