"""Scales that a method like AWQ moved from layers into what feeds them, found again by comparing two models.

A norm shows its scales itself: the original weight over the new one. What was moved from o_proj into v_proj, or from
down_proj into up_proj, is the least-squares factor between each row of the source's original and dequantized weight:
one factor for a whole row of codes, so that rounding moves it by little.
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
        old = before(link.name)
        new = None if old is None else now(link.name)
        if old is None or new is None:
            continue
        if isinstance(link.source, nn.Linear):
            folds.rows[link.name] = kept = _kept(folds.apply(link.name, old.float()), new.float())
            scales = 1 / kept
        else:
            scales = old.float() / new.float()
        folds.columns |= dict.fromkeys(link.targets, scales[link.channels.to(scales.device)])
    return folds


def _kept(before: Tensor, now: Tensor) -> Tensor:
    """The factor of every row, (N,)."""
    energy = before.square().sum(1)
    kept = (before * now).sum(1) / energy
    # A row of zeros tells nothing, and a negative factor is no scale: what such a row holds is wrong.
    return torch.where((energy > 0) & (kept > 0), kept, 1)
