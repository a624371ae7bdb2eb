"""A dequantized weight beside the original one, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from hyocr_core.formats import Bound, Levels
from hyocr_core.verification.distance import apart, dwarfed, gain, group_gains, shift, sqnr_db
from hyocr_core.verification.faults import Fault

SHIFT = 0.5
"""In steps. Zero points that are off by one move every weight by a whole step; over the groups of a sound layer the
errors cancel to within 0.04."""

FEW = 0.25
"""Where a smaller share of a layer's groups is wrong, the rest of the layer is right: the groups are the fault."""

WORSE = 9.0
"""In decibels: how much further than rounding to nearest a method may be from a weight that its format holds badly,
because a few values are so much larger than the others. GPTQ errs by 0.8 steps, rounding to nearest by 0.29."""

DWARFED = 30.0
"""Beside a weight so many times as large, what GPTQ hands on of its error may be more than a whole group of weights."""


@dataclass(frozen=True)
class WeightPair:
    """expected, found: (N, K) fp32. groups: of each output. levels: of `found`, None where they are not known.

    rounded: gives `expected` rounded to nearest in the same format, or None where that cannot be told.
    """

    name: str
    expected: Tensor
    found: Tensor
    bound: Bound
    groups: int
    levels: Levels | None
    rounded: Callable[[], Tensor | None]

    @cached_property
    def decibels(self) -> float | None:
        """The signal-to-noise ratio; None without noise."""
        return sqnr_db(self.expected, self.found)

    @cached_property
    def least(self) -> float:
        """The decibels that are due."""
        if self.decibels is None or self.decibels >= self.bound.decibels or self._nearest is None:
            return self.bound.decibels
        possible = sqnr_db(self.expected, self._nearest)
        if possible is None or possible >= self.bound.decibels:
            return self.bound.decibels
        return possible - WORSE

    def faults(self) -> Iterator[Fault]:
        """The first that is wrong of: zero points, the whole, single groups, all scales, single codes."""
        problem = self._shifted() or self._far() or self._off_in_groups() or self._scaled() or self._off_in_codes()
        if problem is not None:
            yield Fault(self.name, problem)

    def _shifted(self) -> str | None:
        moved = 0.0 if self._errors is None else shift(self._errors, self.groups)
        if abs(moved) <= SHIFT:
            return None
        return f"lies {moved:+.2g} steps off the original's throughout: its zero points are wrong"

    def _far(self) -> str | None:
        few = 0 < self._bad.float().mean() < FEW
        if self.decibels is None or self.decibels >= self.least or few:
            return None
        return f"is not the original's weight: {self.decibels:.1f} dB, at least {self.least:.3g} is due"

    def _off_in_groups(self) -> str | None:
        if not self._bad.any():
            return None
        output, group = self._bad.nonzero()[0].tolist()
        more = f", and {int(self._bad.sum()) - 1} more groups" if self._bad.sum() > 1 else ""
        return (
            f"group {group} of output {output} is {self._gains[output, group]:.3g} times the original's{more}: "
            "its scale or its codes are wrong"
        )

    def _scaled(self) -> str | None:
        whole = gain(self.expected, self.found)
        if self.bound.layer_low < whole < self.bound.layer_high:
            return None
        return f"is {whole:.3g} times the original's throughout: its scales are wrong"

    def _off_in_codes(self) -> str | None:
        if self._errors is None or self.levels is None:
            return None
        lone = apart(self._errors, self.levels)
        if not lone.any():
            return None
        place = lone.nonzero()[0].tolist()
        more = f", and {int(lone.sum()) - 1} more" if lone.sum() > 1 else ""
        return (
            f"the weight {place} lies {self._errors[tuple(place)]:+.2g} steps off the original's, far more than any "
            f"other{more}: its code is wrong"
        )

    @cached_property
    def _nearest(self) -> Tensor | None:
        return self.rounded()

    @cached_property
    def _dwarfed(self) -> Tensor:
        return dwarfed(self.expected, self.groups, DWARFED)

    @cached_property
    def _errors(self) -> Tensor | None:
        """In steps; 0 where a far larger weight explains them."""
        if self.levels is None:
            return None
        errors = (self.found - self.expected) / self.levels.steps
        return errors.masked_fill_(self._dwarfed.repeat_interleave(errors.shape[1] // self.groups, 1), 0)

    @cached_property
    def _gains(self) -> Tensor:
        return group_gains(self.expected, self.found, self.groups)

    @cached_property
    def _bad(self) -> Tensor:
        """(N, groups) bool: what is not explained by larger weights, which the format holds at the cost of these."""
        bad = self._outside(self._gains) & ~self._dwarfed
        if bad.any() and self._nearest is not None:
            bad &= ~self._outside(group_gains(self.expected, self._nearest, self.groups))
        return bad

    def _outside(self, gains: Tensor) -> Tensor:
        return ~((gains > self.bound.low) & (gains < self.bound.high))
