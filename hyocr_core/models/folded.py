"""Scales that a method like AWQ moved from layers into what feeds them, found again by comparing two models.

A norm shows its scales itself: the original weight over the new one. What was moved from o_proj into v_proj, or from
down_proj into up_proj, is the least-squares factor between each row of the source's original and dequantized weight:
one factor for a whole row of codes, so that rounding moves it by little. The columns of the layers it feeds must have
been multiplied by the inverse, or the rows differ for another reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from hyocr_core.contract.types import Smoothing

WeightOf: TypeAlias = Callable[[str], Tensor | None]
"""Module name -> its weight; None where there is none that could be compared."""


EXPLAINED = 0.5
"""Share of what the columns were multiplied by, in squares of logarithms by energy, that the inverse of the rows'
factors leaves at most. On the trained readers it was 0.06 at most of a fold, and without one more than all."""

_LEAST = 1e-3
"""A factor that is smaller, or negative, is no scale: what such a row or column holds is wrong."""


@dataclass
class Folds:
    """What the rows and columns of linears, by name, were multiplied by before they were quantized."""

    rows: dict[str, Tensor] = field(default_factory=dict)
    columns: dict[str, Tensor] = field(default_factory=dict)

    def apply(self, name: str, weight: Tensor) -> Tensor:
        """The weight (N, K) that was really quantized."""
        if name in self.columns:
            weight = weight * self.columns[name]
        return weight * self.rows[name][:, None] if name in self.rows else weight

    def undo(self, name: str, weight: Tensor) -> Tensor:
        """Invert `apply`."""
        return self.outputs(name, self.inputs(name, weight).T).T

    def inputs(self, name: str, inputs: Tensor) -> Tensor:
        """The inputs (..., K) as the folded linear sees them."""
        return (inputs / self.columns[name]).to(inputs.dtype) if name in self.columns else inputs

    def outputs(self, name: str, outputs: Tensor) -> Tensor:
        """What the outputs (..., N) of the folded linear are without the fold."""
        return (outputs / self.rows[name]).to(outputs.dtype) if name in self.rows else outputs


def find_folds(links: Iterable[Smoothing], before: WeightOf, now: WeightOf) -> Folds:
    """Find the scales that moved along these links, given in order of execution."""
    folds = Folds()
    for link in links:
        pair = _pair(folds, link.name, before, now)
        if pair is None:
            continue
        if isinstance(link.source, nn.Linear):
            kept = _factors(*pair, 1)
            if not _taken_up(kept, link, [_pair(folds, name, before, now) for name in link.targets]):
                continue
            folds.rows[link.name] = kept
            scales = 1 / kept
        else:
            scales = pair[0] / pair[1]
        folds.columns |= dict.fromkeys(link.targets, scales[link.channels.to(scales.device)])
    return folds


def _pair(folds: Folds, name: str, before: WeightOf, now: WeightOf) -> tuple[Tensor, Tensor] | None:
    """The weight of a module as it was, with the scales that are known by then, and as it is; fp32."""
    old = before(name)
    new = None if old is None else now(name)
    return None if old is None or new is None else (folds.apply(name, old.float()), new.float())


def _taken_up(kept: Tensor, link: Smoothing, targets: list[tuple[Tensor, Tensor] | None]) -> bool:
    """Whether the columns of the targets hold what the rows were divided by; kept: (rows,)."""
    moved = kept[link.channels.to(kept.device)].log()
    left = found = 0.0
    for before, now in filter(None, targets):
        factors, energy = _factors(before, now, 0).log(), before.square().sum(0)
        left += float(((factors + moved).square() * energy).sum())
        found += float((factors.square() * energy).sum())
    return not any(targets) or left < EXPLAINED * found


def _factors(before: Tensor, now: Tensor, dim: int) -> Tensor:
    """What every row (`dim` 1) or column (0) was multiplied by."""
    energy = before.square().sum(dim)
    factors = (before * now).sum(dim) / energy
    # Zeros tell nothing.
    return torch.where((energy > 0) & (factors > _LEAST), factors, 1)
