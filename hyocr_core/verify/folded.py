"""Scales that a method like AWQ moved from layers into what feeds them, found again by comparing checkpoints.

A norm shows its scales itself: the original weight over the new one. What was moved from o_proj into v_proj, or from
down_proj into up_proj, is the least-squares factor between each row of the source's original and dequantized weight:
one factor for a whole row of codes, so that rounding moves it by little.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from hyocr_core.models.wiring import smoothing_of
from hyocr_core.types import Smoothing
from hyocr_core.verify.original import Original
from hyocr_core.verify.subject import Subject


@dataclass
class Folds:
    """What the rows and columns of linears, by published name, were multiplied by before they were quantized."""

    rows: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, Tensor] = field(default_factory=dict)

    def apply(self, name: str, weight: Tensor) -> Tensor:
        """The weight (N, K) that was really quantized."""
        if name in self.columns:
            weight = weight * self.columns[name]
        return weight * self.rows[name][:, None] if name in self.rows else weight


def links(subject: Subject) -> Iterator[Smoothing]:
    """Where scales can have moved, in order of execution; names are published ones."""
    for place in (*subject.model.vision_blocks, *subject.model.decoder_blocks):
        names = {
            path.removesuffix(".weight"): name.removesuffix(".weight")
            for path, name in subject.model.parameter_names(place).items()
        }
        block = subject.model.skeleton.get_submodule(place.path)
        yield from smoothing_of(block, place.wiring, names, set(subject.quantized))


def source_parameters(subject: Subject) -> set[str]:
    """In-memory names of the carried parameters that a moved scale changes."""
    memory = subject.model.memory_name
    return {memory(f"{link.name}.{part}") for link in links(subject) for part in ("weight", "bias")}


def find_folds(subject: Subject, original: Original, rescaled: set[str]) -> Folds:
    """Find the scales that moved. rescaled: in-memory names of the carried parameters that were changed by them."""
    folds = Folds()
    if not rescaled:
        return folds
    for link in links(subject):
        if isinstance(link.source, nn.Linear):
            scales = _linear_scales(subject, original, link, folds)
        else:
            scales = _norm_scales(subject, original, link, rescaled)
        if scales is not None:
            folds.columns |= dict.fromkeys(link.targets, scales[link.channels])
    return folds


def _norm_scales(subject: Subject, original: Original, link: Smoothing, rescaled: set[str]) -> Tensor | None:
    memory = subject.model.memory_name(f"{link.name}.weight")
    before = original.read(memory)
    if memory not in rescaled or before is None:
        return None
    name = subject.others[memory]
    return before.float() / subject.reader.read([name])[name].float()


def _linear_scales(subject: Subject, original: Original, link: Smoothing, folds: Folds) -> Tensor | None:
    if link.name not in subject.readable:
        return None
    source = subject.readable[link.name]
    before = original.weight(source)
    if before is None:
        return None
    before = folds.apply(link.name, before)
    energy = before.square().sum(1)
    kept = (before * subject.weight(source)).sum(1) / energy
    # A row of zeros tells nothing, and a negative factor is no scale: what such a row holds is wrong.
    kept = torch.where((energy > 0) & (kept > 0), kept, 1)
    folds.rows[link.name] = kept
    return 1 / kept
