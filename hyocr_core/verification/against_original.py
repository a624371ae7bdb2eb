"""Checks against the full-precision checkpoint that a quantized one was made from."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.models.folded import Folds
from hyocr_core.progress import Progress
from hyocr_core.verification.basis import Basis
from hyocr_core.verification.faults import Fault
from hyocr_core.verification.original import Original
from hyocr_core.verification.subject import Linear, Subject
from hyocr_core.verification.unfold import source_parameters
from hyocr_core.verification.weight_pair import WeightPair


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
            # Turned back into another basis, a weight is no value of the format any more.
            levels = subject.levels(linear) if basis.holds(linear.name) else None
            expected = folds.apply(published, before)
            rounded = partial(_nearest, subject, original, folds, published)
            pair = WeightPair(
                linear.name, expected, found, subject.bound(linear), subject.groups(linear), levels, rounded
            )
            matches.append(Match(linear.name, linear.shape, pair.decibels, pair.least))
            faults += pair.faults()
        progress.step(linear.name)
    return faults, matches


def _nearest(subject: Subject, original: Original, folds: Folds, published: str) -> Tensor | None:
    """The original's weight (N, K) fp32 as its format rounds it to nearest; None where there is no format to ask."""
    linear = subject.linears[published]
    if linear.format is None:
        return None

    def weight(member: Linear) -> Tensor | None:
        stored, name = original.read(f"{member.memory}.weight"), subject.published(member)
        return None if stored is None else folds.apply(name, stored.float()).to(stored.dtype)

    own = weight(linear)
    others = [weight(each) for group in subject.fused() if linear in group for each in group if each is not linear]
    sharing = [each for each in others if each is not None]
    return None if own is None else linear.format.nearest(own, sharing if linear.format.shares_scale else ()).float()


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
