"""Many cases of a target after each other, counted; each kind of fault is kept once."""

from __future__ import annotations

import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from hypothesis import HealthCheck, Phase, given, seed, settings

from tests.fuzz.served import Served
from tests.fuzz.targets import Case, Target
from tests.fuzz.trial import CODES, Ended, try_case

ROUND = 50
"""Cases that are drawn before the clock is looked at again."""


@dataclass
class Counts:
    """codes: how often a command ended with each exit code. faults: kinds of them."""

    codes: Counter[int] = field(default_factory=Counter)
    faults: int = 0
    slowest: float = 0.0

    def __str__(self) -> str:
        codes = ", ".join(f"{self.codes[code]} with exit code {code}" for code in CODES)
        return f"{self.codes.total()} inputs ({codes}), {self.faults} faults, the slowest took {self.slowest:.1f} s"


@dataclass
class Campaign:
    """world: a folder, which stays as it is. faults: for each kind a folder with an input that shows it."""

    world: Path
    server: Served
    seed: int
    total: Counts = field(default_factory=Counts)
    faults: list[str] = field(default_factory=list)
    _seen: set[str] = field(default_factory=set)

    def run(self, name: str, target: Target, seconds: float) -> Counts:
        """Try cases until the time is up, at least a round of them."""
        counts, end = Counts(), time.monotonic() + seconds
        cases, number = target(self.world), 0

        while number == 0 or time.monotonic() < end:

            @seed(f"{self.seed} {name} {number}")
            @settings(
                max_examples=ROUND,
                database=None,
                deadline=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            @given(cases)
            def once(case: Case) -> None:
                if time.monotonic() < end:
                    self._try(name, case, counts)

            once()
            number += 1
        return counts

    def _try(self, name: str, case: Case, counts: Counts) -> None:
        began = time.monotonic()
        ended = try_case(case, self.world, self.server)
        for each in (counts, self.total):
            each.codes[ended.code] += 1
            each.slowest = max(each.slowest, time.monotonic() - began)
        if ended.fault is not None and (kind := _kind(ended)) not in self._seen:
            self._seen.add(kind)
            counts.faults += 1
            self.total.faults += 1
            self.faults.append(f"{name}: {kind}: {_keep(case, ended)}")


def _kind(ended: Ended) -> str:
    """What tells one fault from another: of a traceback the exception and our last line in it."""
    lines = (ended.fault or "").splitlines()
    ours = [line.strip() for line in lines if "hyocr_" in line and line.strip().startswith("File")]
    return f"{lines[-1][:120]} {ours[-1] if ours else ''}"


def _keep(case: Case, ended: Ended) -> str:
    """Write an input where it can be looked at; return the folder."""
    folder = Path(tempfile.mkdtemp(prefix="hyocr-fault-"))
    (folder / "command.json").write_text(json.dumps(case.command), encoding="utf-8")
    (folder / "fault.txt").write_text(ended.fault or "", encoding="utf-8", errors="backslashreplace")
    for name, data in case.files.items():
        place = folder / "files" / Path(name).name
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(data)
    return str(folder)
