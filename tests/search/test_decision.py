"""Which of the recipes that were tried is taken, with a model of how they read in the place of reading."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hyocr_core.errors import ConfigError
from hyocr_core.search.candidates import Group
from hyocr_core.search.decision import Decision, decide
from hyocr_core.search.frontier import Frontier
from hyocr_core.search.knapsack import Chosen, Option
from hyocr_core.search.search_config import SearchConfig
from hyocr_core.search.search_record import Tried

GROUPS = [(f"layer-{index}",) for index in range(8)]


class Plan:
    """Sizes alone: a group takes 10 bytes, or 4, beside 100 that stay."""

    kept_bytes = 100
    range = (132, 180)

    def __init__(self, **budget: Any) -> None:
        given = {"model": "m", "data": "d", "output": "r.yaml", **budget}
        self.config = SearchConfig.model_validate(given)


def frontier(**budget: Any) -> Frontier:
    options: dict[Group, list[Option]] = {
        group: [Option("four", 4, 1e-4 * (1 + at)), Option("none", 10, 0.0)] for at, group in enumerate(GROUPS)
    }
    return Frontier(cast("Any", Plan(**budget)), options)


def reading(*, loops: int = 99, factor: float = 1.0) -> Any:
    """KL is `factor` times what is predicted, CER in points a thousand times that; loops: of so many fours and more."""

    def tried(chosen: Chosen) -> Tried:
        fours = [at for at, group in enumerate(GROUPS) if chosen[group] == "four"]
        kl = factor * sum(1e-4 * (1 + at) for at in fours)
        return Tried(
            kl=kl,
            cer_difference=10 * kl,
            agreement=1.0,
            loop_rate=0.1 if len(fours) >= loops else 0.0,
            baseline_loop_rate=0.0,
            weight_bytes=None,
        )

    return tried


def fours(decision: Decision) -> int:
    return sum(name == "four" for name in decision.taken.point.chosen.values())


def test_a_neighbour_that_reads_better_within_the_size_is_taken() -> None:
    found = frontier(size=160)
    first = decide(found, found.curve(), reading())
    assert first.taken is first.attempts[0]
    assert len(first.attempts) == 3
    assert all(attempt.point.nbytes <= 160 for attempt in first.attempts)
    best = first.taken.point.chosen
    plain = reading()

    def surprising(chosen: Chosen) -> Tried:
        found: Tried = plain(chosen)
        return found.model_copy(update={"kl": 1.0} if chosen == best else {})

    second = decide(found, found.curve(), surprising)
    assert second.taken is second.attempts[1]


def test_a_recipe_that_loops_more_is_never_taken() -> None:
    found = frontier(kl=3.7e-3, trials=9)
    assert fours(decide(found, found.curve(), reading())) == 8
    assert fours(decide(found, found.curve(), reading(loops=7))) == 6
    with pytest.raises(ConfigError, match="and more loops than the original"):
        decide(frontier(size=140), found.curve(), reading(loops=1))


def test_what_is_measured_decides_and_not_what_is_predicted() -> None:
    found = frontier(kl=1e-3, trials=9)
    assert fours(decide(found, found.curve(), reading())) == 4
    assert fours(decide(found, found.curve(), reading(factor=2))) == 2
    assert fours(decide(found, found.curve(), reading(factor=0.5))) == 5


def test_what_one_trial_shows_of_the_prediction_leads_to_the_next() -> None:
    found = frontier(kl=1e-3, trials=2)
    decision = decide(found, found.curve(), reading(factor=10))
    assert len(decision.attempts) == 2
    assert fours(decision) == 1


def test_a_bound_of_kl_is_met_by_the_smallest_choice_between_the_points_of_the_curve_too() -> None:
    found = frontier(kl=1.2e-3, trials=9)
    decision = decide(found, found.curve()[::7], reading(factor=1.3))
    best = found.within(kl=1.2e-3 / 1.3)
    assert best is not None
    assert decision.taken.point.nbytes == best.nbytes
    assert len({attempt.point.nbytes for attempt in decision.attempts}) == len(decision.attempts)


def test_a_bound_that_only_the_original_holds_is_tried_with_the_least_kl_once() -> None:
    found = frontier(kl=1e-9, trials=2)
    curve = [point for point in found.curve() if found.quantizes(point)]
    with pytest.raises(ConfigError, match="none of 1 recipes tried meets the budget"):
        decide(found, curve, reading())


def test_more_is_tried_than_was_asked_for_while_nothing_meets_the_budget() -> None:
    found = frontier(kl=1e-3, trials=1)
    decision = decide(found, found.curve(), reading(factor=10))
    assert [attempt.meets(found.plan.config) for attempt in decision.attempts] == [False, True]


def test_a_bound_of_cer_is_searched_for_along_the_curve() -> None:
    found = frontier(cer=1.0, trials=9)
    decision = decide(found, found.curve(), reading())
    assert fours(decision) == 4
    assert len(decision.attempts) <= 5


def test_without_trials_the_prediction_is_trusted() -> None:
    found = frontier(kl=1e-3, trials=0)
    decision = decide(found, found.curve(), reading())
    assert fours(decision) == 4
    assert [attempt.tried for attempt in decision.attempts] == [None]


def test_a_budget_that_nothing_meets_is_said_with_the_nearest() -> None:
    found = frontier(cer=0.001, trials=1)
    with pytest.raises(ConfigError, match=r"none of 2 recipes tried meets the budget; the nearest has .* CER \+"):
        decide(found, found.curve(), reading(factor=1e3))
