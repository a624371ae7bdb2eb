"""Checks against the full-precision checkpoint that a quantized one was made from."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.formats import Bound, Levels
from hyocr_core.models.folded import Folds
from hyocr_core.progress import Progress
from hyocr_core.verification.basis import Basis
from hyocr_core.verification.distance import apart, gain, group_gains, shift, sqnr_db
from hyocr_core.verification.faults import Fault
from hyocr_core.verification.original import Original
from hyocr_core.verification.subject import Linear, Subject
from hyocr_core.verification.unfold import source_parameters

SHIFT = 0.5
"""In steps. Zero points that are off by one move every weight by a whole step; over the groups of a sound layer the
errors cancel to within 0.03."""

FEW = 0.25
"""Where a smaller share of a layer's groups is wrong, the rest of the layer is right: the groups are the fault."""


@dataclass(frozen=True)
class Match:
    """One dequantized linear beside the original. decibels: None when it is exact. least: what is asked for."""

    name: str
    shape: tuple[int, int]
    decibels: float | None
    least: float


def check_carried(
    subject: Subject, original: Original, report: QuantReport | None, replaced: Collection[str], progress: Progress
) -> tuple[list[Fault], set[str]]:
    """Hold what is not quantized against the original, byte for byte, but for what the method has `replaced`.

    Return faults, and the in-memory names of parameters that differ because scales were folded into them.
    """
    plain = {f"{linear.memory}.weight": linear.plain for linear in subject.linears.values() if linear.plain}
    foldable = source_parameters(subject)
    faults, rescaled = [], set()
    for memory, name in (subject.others | plain).items():
        before, now = original.read(memory), subject.reader.read([name])[name]
        if before is None:
            faults.append(Fault(name, "is not in the original"))
        elif name not in replaced and not _same_bytes(before, now):
            if memory in foldable and _was_folded(before, now, name, report):
                rescaled.add(memory)
            else:
                faults.append(Fault(name, f"differs from the original{_first_difference(before, now)}"))
        progress.step(name)
    return faults, rescaled


def check_weights(
    subject: Subject, original: Original, folds: Folds, basis: Basis, progress: Progress
) -> tuple[list[Fault], list[Match]]:
    """Hold every dequantized linear that can be compared against the original, with the scales folded into it."""
    faults, matches = [], []
    for published, linear in subject.readable.items():
        before, found = original.weight(linear), basis.turned_back(linear.name, subject.weight(linear))
        if before is None:
            faults.append(Fault(linear.name, "has no counterpart of its shape in the original"))
        elif found is not None:
            expected, bound = folds.apply(published, before), subject.bound(linear)
            matches.append(Match(linear.name, linear.shape, sqnr_db(expected, found), bound.decibels))
            # Turned back into another basis, a weight is no value of the format any more.
            levels = subject.levels(linear) if basis.holds(linear.name) else None
            faults += _check_weight(linear, expected, found, bound, subject.groups(linear), levels)
        progress.step(linear.name)
    return faults, matches


def _same_bytes(left: Tensor, right: Tensor) -> bool:
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    return torch.equal(left.reshape(-1).view(torch.uint8), right.reshape(-1).view(torch.uint8))


def _was_folded(before: Tensor, now: Tensor, name: str, report: QuantReport | None) -> bool:
    """Whether a change of a scale's source may be a fold: reported, or, by another tool, of most channels."""
    if before.shape != now.shape:
        return False
    if report is not None:
        return name in report.rescaled
    return bool((before != now).float().mean() > 0.5)


def _first_difference(before: Tensor, now: Tensor) -> str:
    if before.shape != now.shape or before.dtype != now.dtype:
        return f": it was {before.dtype} {list(before.shape)}"
    places = (before.float() != now.float()).nonzero()
    return f" in {len(places)} of {before.numel()} values, first at {places[0].tolist()}" if len(places) else ""


def _check_weight(
    linear: Linear, expected: Tensor, found: Tensor, bound: Bound, groups: int, levels: Levels | None
) -> Iterator[Fault]:
    """The first that is wrong of: zero points, the whole, single groups, all scales, single codes."""
    if levels is not None and abs(moved := shift((found - expected) / levels.steps, groups)) > SHIFT:
        yield Fault(
            linear.name, f"lies {moved:+.2g} steps off the original's throughout: its zero points are wrong"
        )
        return
    decibels = sqnr_db(expected, found)
    gains = group_gains(expected, found, groups)
    bad = ~((gains > bound.low) & (gains < bound.high))
    whole = gain(expected, found)
    if decibels is not None and decibels < bound.decibels and not 0 < bad.float().mean() < FEW:
        yield Fault(linear.name, f"is not the original's weight: {decibels:.1f} dB, at least {bound.decibels:g} is due")
    elif bad.any():
        output, group = bad.nonzero()[0].tolist()
        more = f", and {int(bad.sum()) - 1} more groups" if bad.sum() > 1 else ""
        yield Fault(
            linear.name,
            f"group {group} of output {output} is {gains[output, group]:.3g} times the original's{more}: "
            "its scale or its codes are wrong",
        )
    elif not bound.layer_low < whole < bound.layer_high:
        yield Fault(linear.name, f"is {whole:.3g} times the original's throughout: its scales are wrong")
    elif levels is not None:
        yield from _check_codes(linear, (found - expected) / levels.steps, levels)


def _check_codes(linear: Linear, errors: Tensor, levels: Levels) -> Iterator[Fault]:
    lone = apart(errors, levels)
    if lone.any():
        place = lone.nonzero()[0].tolist()
        more = f", and {int(lone.sum()) - 1} more" if lone.sum() > 1 else ""
        yield Fault(
            linear.name,
            f"the weight {place} lies {errors[tuple(place)]:+.2g} steps off the original's, far more than any other"
            f"{more}: its code is wrong",
        )
