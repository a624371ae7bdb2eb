"""What a check yields."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Fault:
    """Something wrong with a checkpoint. place: a file, tensor or layer, by its on-disk name."""

    place: str
    problem: str

    def __str__(self) -> str:
        return f"{self.place}: {self.problem}"


@dataclass
class Findings:
    """notes: what could not be checked, and why."""

    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
