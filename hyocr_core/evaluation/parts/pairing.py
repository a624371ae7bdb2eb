"""Which part of what was read belongs to which part of the transcript, and the libraries that such metrics need."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from itertools import islice
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from hyocr_core.contract.metric import Metric
from hyocr_core.errors import MetricError

MOST = 1000
"""Parts of one kind on a page that are paired: for 1000 by 1000 it takes a moment, for 50,000 all memory."""

_NOTED = 3
"""Kinds of faults that a note names."""

PARSING = ("doc_parse", "layout_parse", "doc_trans_en2zh")
"""Tasks whose answers are whole documents: Markdown with HTML tables and LaTeX formulas."""


def library(name: str) -> Any:
    """A module of the extra `documents`. Raises MetricError, with the command that installs it, where it is missing."""
    try:
        return import_module(name)
    except ImportError as error:
        raise MetricError(f"needs {name.partition('.')[0]}: pip install 'hyocr-core[documents]'") from error


class PairingMetric(Metric):
    """A metric that pairs parts. It does not start where a library of the extra `documents` is missing."""

    api_version: ClassVar[int] = 1
    unit: ClassVar[str] = "%"
    libraries: ClassVar[tuple[str, ...]] = ("scipy.optimize",)

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        for name in self.libraries:
            library(name)


def cheapest_pairs(costs: NDArray[Any]) -> list[tuple[int, int]]:
    """The pairs of a row and a column, each in one pair at most, of the smallest sum (Hungarian algorithm).

    costs: (rows, columns), at most MOST of each. There are as many pairs as the shorter side has.
    """
    if not costs.size:
        return []
    rows, columns = library("scipy.optimize").linear_sum_assignment(costs)
    return list(zip(rows.tolist(), columns.tolist(), strict=True))


def moved(rows: int, columns: int) -> NDArray[np.int64]:
    """(rows, columns): how many places lie between those of a pair, squared: least in sum where none cross."""
    return np.subtract.outer(np.arange(rows), np.arange(columns)) ** 2


def most_pairs(may: NDArray[np.bool_]) -> int:
    """How many pairs of a row and a column there can be at once, where only those that are True may be."""
    return sum(bool(may[pair]) for pair in cheapest_pairs(~may))


def f1(hits: int, expected: int, found: int) -> float:
    """The harmonic mean of precision and recall; 1 where nothing is expected and nothing found."""
    return 2 * hits / (expected + found) if expected + found else 1.0


def listed(faults: Iterable[str]) -> str:
    """Faults as a note, each once, at most three of them; only the first thousand are looked for."""
    kinds = list(dict.fromkeys(islice(faults, MOST)))
    more = len(kinds) - _NOTED
    return "; ".join([*kinds[:_NOTED], *([f"and {more} more"] if more > 0 else [])])
