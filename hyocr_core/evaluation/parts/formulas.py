"""The metrics of formulas."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from hyocr_core.evaluation.parts.broken_latex import latex_faults
from hyocr_core.evaluation.parts.latex import find_formulas, latex_tokens
from hyocr_core.evaluation.parts.pairing import MOST, PARSING, PairingMetric, cheapest_pairs, listed, moved
from hyocr_core.wording import phrase

_PER_PLACE = 1e-9  # of the distance: decides only between formulas that are equally near


class FormulaDistance(PairingMetric):
    """Edit distance of LaTeX formulas over the longer one, in tokens after `latex_tokens`; a mean over the formulas.

    Formulas are paired to the smallest sum. One that was not read has distance 1, and so has one that was read and is
    not there. A page without a formula does not count. A broken formula is compared as it is, token by token.
    Nothing is rendered: of CDM (Wang et al. 2024) its normalization is here in short, its matching of drawn characters
    and their places is not. The cost is bounded: no more than 1000 formulas of a page are paired.
    """

    title: ClassVar[str] = phrase("formulas (edit distance)")
    tasks: ClassVar[tuple[str, ...]] = (*PARSING, "trans_other2zh", "trans_other2en", "formula")

    def page(self, text: str, reference: str) -> float:
        """The sum of the distances of the transcript's formulas; with too many read it is worse in proportion."""
        expected, found = _tokens(reference), _tokens(text)
        most = max(len(expected), len(found), 1)
        paired = paired_distances(expected, found)
        return (sum(paired) + most - len(paired)) * len(expected) / most

    def note(self, text: str, reference: str) -> str:  # noqa: ARG002
        return listed(latex_faults(text))

    def size(self, reference: str) -> float:
        """How many formulas there are."""
        return len(find_formulas(reference))


class FormulaExact(FormulaDistance):
    """Formulas whose tokens after `latex_tokens` are those of the transcript, paired as for their distance."""

    title: ClassVar[str] = phrase("formulas without any error")
    better: ClassVar[Literal["smaller", "larger"]] = "larger"

    def page(self, text: str, reference: str) -> float:
        """How many of the transcript's formulas; with too many read it is less in proportion."""
        expected, found = _tokens(reference), _tokens(text)
        right = paired_distances(expected, found).count(0)
        return right * len(expected) / max(len(expected), len(found), 1)


def paired_distances(expected: Sequence[list[str]], found: Sequence[list[str]]) -> list[float]:
    """The distance of each pair."""
    return [far for _, _, far in pair_formulas(expected, found)]


def pair_formulas(expected: Sequence[list[str]], found: Sequence[list[str]]) -> list[tuple[int, int, float]]:
    """Which formula was read as which, and how far it is, to the smallest sum; among equal ones, in their order."""
    far = cdist(expected[:MOST], found[:MOST], scorer=Levenshtein.normalized_distance, dtype=np.float64)
    pairs = cheapest_pairs(far + _PER_PLACE * moved(*far.shape))
    return [(old, new, float(far[old, new])) for old, new in pairs]


def _tokens(text: str) -> list[list[str]]:
    return [latex_tokens(formula) for formula in find_formulas(text)]
