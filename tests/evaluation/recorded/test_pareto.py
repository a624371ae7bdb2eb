from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hyocr_core.evaluation.recorded.pareto import pareto_front

values = st.integers(0, 5).map(float)


def test_front() -> None:
    costs = [(10, 1.0), (5, 2.0), (5, 3.0), (7, 2.0), (1, 9.0), (12, 1.0)]
    assert pareto_front(costs) == [0, 1, 4]


def test_equals_stay_together() -> None:
    assert pareto_front([(1, 1), (1, 1), (1, 2)]) == [0, 1]
    assert pareto_front([]) == []


@given(st.lists(st.tuples(values, values), max_size=12))
def test_the_front_is_what_nobody_beats_and_beats_all_others(costs: list[tuple[float, float]]) -> None:
    front = pareto_front(costs)
    assert front == sorted(set(front))
    # Walking by size, a choice is on the front if its error is below that of all smaller ones.
    best: dict[float, float] = {}
    for size, error in costs:
        best[size] = min(error, best.get(size, error))
    lowest, expected = float("inf"), set()
    for size in sorted(best):
        if best[size] < lowest:
            lowest = best[size]
            expected.add((size, lowest))
    assert {costs[index] for index in front} == expected
    assert len(front) == sum(cost in expected for cost in costs)
