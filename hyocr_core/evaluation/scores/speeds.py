"""What a measurement of speed says: of one checkpoint, or of two that were served in turn. Imports no torch."""

from __future__ import annotations

from statistics import median
from typing import TypeAlias

from pydantic import Field

from hyocr_core.contract.backend import Forward
from hyocr_core.contract.config import FrozenModel
from hyocr_core.evaluation.scores.result import Runtime
from hyocr_core.settings.bench_load import BenchLoad

BENCH_SCHEMA = 1
"""Number of the shape of a BenchResult; another one cannot be read."""

Measured: TypeAlias = tuple[float, ...]
"""A number of every repetition, in the order in which they were measured."""


class SpeedAt(FrozenModel):
    """How fast pages were read, so many at once."""

    at_once: int
    tokens: int = Field(description="written in one repetition, of all its pages")
    pages_per_second: Measured
    tokens_per_second: Measured
    first_token_seconds: Measured = Field(description="median over the pages, from the request on; empty if not asked")
    token_seconds: Measured = Field(description="between tokens after the first, mean over them; empty if not asked")


class ServedSpeed(FrozenModel):
    """How fast one checkpoint was served. Warming up counts nowhere."""

    model: str = Field(description="folder, id on the hub, or what the endpoint calls it")
    revision: str | None = Field(None, description="commit on the hub")
    subfolder: str | None = Field(None, description="folder in the hub's repository; None for its root")
    runtime: Runtime
    forward: Forward | None
    weight_bytes: int | None = Field(description="size of the weight files on disk; None behind an endpoint")
    ready_seconds: float = Field(description="median over turns, until it was loaded and had read a page")
    memory_bytes: int | None = Field(description="most that the processes of the server held; None if it is elsewhere")
    gpu_memory_bytes: int | None = Field(description="the same of the GPU; None where there is none, or nobody says")
    levels: tuple[SpeedAt, ...]

    def level(self, at_once: int) -> SpeedAt:
        """That with so many pages at once."""
        return next(level for level in self.levels if level.at_once == at_once)


class BenchResult(FrozenModel):
    """The whole measurement."""

    schema_version: int = BENCH_SCHEMA
    hyocr: str
    data: str = Field(description="the source as it was given")
    pages: int = Field(description="different ones")
    max_new_tokens: int
    load: BenchLoad
    model: ServedSpeed
    baseline: ServedSpeed | None
    environment: dict[str, str] = Field(description="machine, and versions of what the numbers depend on")

    @property
    def served(self) -> dict[str, ServedSpeed]:
        """The baseline, if there is one, and the model."""
        found = {"baseline": self.baseline, "model": self.model}
        return {role: speed for role, speed in found.items() if speed is not None}

    def faster(self, at_once: int) -> tuple[float, float, float] | None:
        """How many times as many pages a second as the baseline in the same repetition: median, least and most.

        None without a baseline.
        """
        if self.baseline is None:
            return None
        both = (speed.level(at_once).pages_per_second for speed in (self.model, self.baseline))
        factors = [ours / theirs for ours, theirs in zip(*both, strict=True)]
        return median(factors), min(factors), max(factors)
