"""What a search has measured so far, as its journal keeps it."""

from __future__ import annotations

from collections.abc import Sequence

from pydantic import Field
from torch import Tensor

from hyocr_core.contract.config import FrozenModel
from hyocr_core.run.run_record import RunRecord


class Effect(FrozenModel):
    """What a candidate does to the predictions when one group alone has it.

    kl: nats per answer token, to second order. error: its standard error over the pages.
    """

    kl: float
    error: float

    @classmethod
    def of(cls, halves: Tensor, tokens: int) -> Effect:
        """halves: (pages, draws), half the squared products. tokens: of all answers of these pages."""
        pages = halves.double().mean(dim=1)
        error = float(pages.std()) * len(pages) ** 0.5 if len(pages) > 1 else float(pages.sum())
        return cls(kl=float(pages.sum()) / tokens, error=error / tokens)


class Tried(FrozenModel):
    """What was measured of a recipe by quantizing with it and reading.

    kl: of the original, mean per token along its own answers, nats. cer_difference: as a fraction, None without
    transcripts. weight_bytes: of the files on disk.
    """

    kl: float
    cer_difference: float | None
    agreement: float | None
    loop_rate: float
    baseline_loop_rate: float
    weight_bytes: int | None

    @property
    def loops_more(self) -> bool:
        """Whether it ends in loops on more pages than the original: such a recipe is never taken."""
        return self.loop_rate > self.baseline_loop_rate


class SearchRecord(RunRecord):
    """forwarded: keys of blocks behind which all pages are. drawn: whether the draws are below the head.

    measured: key of a block -> group -> candidate -> effect. tried: digest of a recipe and of pages -> how it reads.
    """

    forwarded: list[str] = Field(default_factory=list)
    drawn: bool = False
    measured: dict[str, dict[str, dict[str, Effect]]] = Field(default_factory=dict)
    tried: dict[str, Tried] = Field(default_factory=dict)


def group_name(group: Sequence[str]) -> str:
    """What a group is called: the names of its layers, joined."""
    return " + ".join(group)
