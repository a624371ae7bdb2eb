"""Answers that say nothing of how well a checkpoint reads: empty ones, loops, and what was cut at the limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from hyocr_core.evaluation.scores.result import EvalResult, PageResult
from hyocr_core.wording import listed, phrase, tr

_LOOK = phrase("look at the pages, at what they are asked and at --max-new-tokens")


@dataclass(frozen=True)
class Unusable:
    """Pages of one checkpoint. any: those with one of the faults, each once."""

    pages: int
    empty: int
    loops: int
    cut: int
    any: int

    @property
    def most(self) -> bool:
        """Whether most answers are so."""
        return 2 * self.any > self.pages

    def __str__(self) -> str:
        kinds = {
            phrase("{number} empty"): self.empty,
            phrase("{number} in a loop"): self.loops,
            phrase("{number} cut at the limit of tokens"): self.cut,
        }
        found = listed(tr(kind, number=number) for kind, number in kinds.items() if number)
        some = tr("{some} of {all}", some=self.any, all=self.pages)
        return tr("{some} ({found})", some=some, found=found) if found else some


def unusable(result: EvalResult, role: Literal["model", "baseline"]) -> Unusable:
    """Count them; an answer may be empty where the transcript is."""
    faults = [_faults(page, role) for page in result.pages]
    empty, loops, cut = (sum(kind) for kind in zip(*faults, strict=True))
    return Unusable(len(faults), empty, loops, cut, sum(map(any, faults)))


def _faults(page: PageResult, role: Literal["model", "baseline"]) -> tuple[bool, bool, bool]:
    if role == "model":
        return _is_empty(page.text, page), page.loop, page.cut
    return _is_empty(page.baseline_text, page), bool(page.baseline_loop), bool(page.baseline_cut)


def _is_empty(text: str | None, page: PageResult) -> bool:
    return not text and page.reference != ""


def unusable_warning(result: EvalResult) -> Iterator[str]:
    """A line where most answers are so, with what to look at."""
    own = unusable(result, "model")
    if not own.most:
        return
    look = tr(_LOOK)
    if result.baseline is None:
        yield tr("most answers say nothing: {own}; {look}, and compare with a baseline", own=own, look=look)
        return
    before = unusable(result, "baseline")
    said = tr("most answers say nothing: {own}, and of the baseline's {before}", own=own, before=before)
    yield tr("{said}; {look}", said=said, look=look) if before.most else said
