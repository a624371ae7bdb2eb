"""The metrics of tables."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from hyocr_core.errors import MetricError
from hyocr_core.evaluation.parts.broken_html import table_faults
from hyocr_core.evaluation.parts.html_tables import Table, find_tables
from hyocr_core.evaluation.parts.pairing import MOST, PARSING, PairingMetric, cheapest_pairs, listed, moved
from hyocr_core.evaluation.parts.teds import teds
from hyocr_core.wording import phrase


class Teds(PairingMetric):
    """TEDS of HTML tables (Zhong et al. 2020), a mean over the tables of the transcripts.

    Tables are paired by their text. One that was not read scores 0; where more were read than are there, the page's
    score goes down in that proportion. A page without a table does not count.
    Broken HTML is repaired as `find_tables` says, and scores by what is left of it.
    The cost is bounded: beyond 400 rows and cells in both tables, without equal rows at their ends, the score is a
    lower bound (`tree_distance`), and no more than 1000 tables of a page are paired.
    """

    title: ClassVar[str] = phrase("tables (TEDS)")
    better: ClassVar[Literal["smaller", "larger"]] = "larger"
    libraries: ClassVar[tuple[str, ...]] = ("apted", "lxml.html", "scipy.optimize")
    tasks: ClassVar[tuple[str, ...]] = (*PARSING, "table")

    def page(self, text: str, reference: str) -> float:
        """The sum of the scores of the transcript's tables."""
        expected, found = _tables_of(reference), find_tables(text)
        score = sum(self.alike(expected[i], found[j]) for i, j in pair_tables(expected, found))
        return score * len(expected) / max(len(expected), len(found), 1)

    def size(self, reference: str) -> float:
        """How many tables there are. Raises MetricError for a transcript with one that has no row."""
        return len(_tables_of(reference))

    def note(self, text: str, reference: str) -> str:  # noqa: ARG002
        return listed(table_faults(text))

    def alike(self, expected: Table, found: Table) -> float:
        """The score of one table, 0 to 1."""
        return teds(expected, found)


class TedsStructure(Teds):
    """TEDS-S: the same of rows, cells and their spans alone, whatever is written in them."""

    title: ClassVar[str] = phrase("structure of tables (TEDS-S)")

    def alike(self, expected: Table, found: Table) -> float:
        return teds(_empty(expected), _empty(found))


def _tables_of(reference: str) -> list[Table]:
    tables = find_tables(reference)
    if not all(table.rows for table in tables):
        raise MetricError("its transcript has a table without a row: mend it, or leave out --metrics teds")
    return tables


def pair_tables(expected: Sequence[Table], found: Sequence[Table]) -> list[tuple[int, int]]:
    """Which table was read as which; of equally good pairs those that stand in the same order. At most MOST of each."""
    if len(expected) == len(found) == 1:
        return [(0, 0)]
    texts = [table.text for table in expected[:MOST]], [table.text for table in found[:MOST]]
    far = cdist(*texts, scorer=Levenshtein.normalized_distance, dtype=np.float64)
    return cheapest_pairs(far + 1e-9 * moved(*far.shape))


def _empty(table: Table) -> Table:
    return Table([tuple(replace(cell, content=()) for cell in row) for row in table.rows])
