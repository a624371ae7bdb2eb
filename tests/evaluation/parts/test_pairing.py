"""Pairs of parts, against all pairs that there can be."""

from __future__ import annotations

import numpy as np
import pytest

from hyocr_core.evaluation.parts.pairing import cheapest_pairs, f1, most_pairs
from tests.evaluation.parts.oracles import matchings

pytest.importorskip("scipy")


@pytest.mark.parametrize("seed", range(200))
def test_they_are_the_cheapest_and_the_most(seed: int) -> None:
    draw = np.random.default_rng(seed)
    costs = draw.integers(0, 5, size=draw.integers(0, 5, size=2)).astype(float)
    rows, columns = costs.shape
    complete = [pairs for pairs in matchings(rows, columns) if len(pairs) == min(rows, columns)]
    found = cheapest_pairs(costs)
    assert sum(costs[pair] for pair in found) == min(sum(costs[pair] for pair in pairs.items()) for pairs in complete)
    assert len(dict(found)) == len({column for _, column in found}) == min(rows, columns)
    may = costs < 2
    allowed = [len(pairs) for pairs in matchings(rows, columns) if all(may[pair] for pair in pairs.items())]
    assert most_pairs(may) == max(allowed)


def test_f1() -> None:
    assert [f1(2, 4, 2), f1(0, 3, 0), f1(0, 0, 5), f1(0, 0, 0), f1(3, 3, 3)] == [2 / 3, 0, 0, 1, 1]
