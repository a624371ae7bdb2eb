"""Which recipe to take: the predicted best and its neighbours, tried."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from hyocr_core.errors import ConfigError
from hyocr_core.resources import size
from hyocr_core.search.frontier import Frontier, Point
from hyocr_core.search.knapsack import Chosen
from hyocr_core.search.search_config import SearchConfig
from hyocr_core.search.search_record import Tried

Try = Callable[[Chosen], Tried]
PATIENCE = 2
"""Times as many trials as asked for are made while none of them meets the budget."""
NEAR = 0.01
"""The part of a predicted KL that two predictions may lie apart and be as good as one."""


@dataclass(frozen=True)
class Attempt:
    """A point, and how it reads; None where nothing was tried."""

    point: Point
    tried: Tried | None

    def meets(self, config: SearchConfig) -> bool:
        """Whether it holds the budget, as far as it was measured, and loops no more than the original."""
        if config.size is not None and self.point.nbytes > config.size:
            return False
        if self.tried is None:
            return config.kl is None or self.point.kl <= config.kl
        if self.tried.loops_more:
            return False
        if config.kl is not None:
            return self.tried.kl <= config.kl
        return config.cer is None or 100 * (self.tried.cer_difference or 0.0) <= config.cer


@dataclass(frozen=True)
class Decision:
    """attempts: in the order in which they were made. taken: one of them."""

    taken: Attempt
    attempts: tuple[Attempt, ...]


def decide(frontier: Frontier, curve: list[Point], tried: Try) -> Decision:
    """Try the choice and its neighbours: `trials` of them, and more while none meets the budget.

    curve: its points, but for the original itself. Under a size the one of least measured KL is taken, under a bound of
    KL or CER the smallest. Raises ConfigError with the nearest when none of them meets the budget.
    """
    config = frontier.plan.config
    attempts: list[Attempt] = []
    good: list[Attempt] = []
    for point in _points(frontier, curve, attempts):
        attempts.append(Attempt(point, tried(point.chosen) if config.trials else None))
        good = [attempt for attempt in attempts if attempt.meets(config)]
        # A search that ends with nothing has cost as much as one more trial or two.
        if len(attempts) >= max(config.trials, 1) * (1 if good else PATIENCE):
            break
    if not good:
        raise ConfigError(_nothing(config, attempts, curve))
    by_kl = config.size is not None
    return Decision(min(good, key=lambda one: _rank(one, by_kl=by_kl)), tuple(attempts))


def _rank(attempt: Attempt, *, by_kl: bool) -> tuple[float, float]:
    kl = attempt.point.kl if attempt.tried is None else attempt.tried.kl
    return (kl, attempt.point.nbytes) if by_kl else (attempt.point.nbytes, kl)


def _points(frontier: Frontier, curve: list[Point], attempts: list[Attempt]) -> Iterator[Point]:
    """What to try, one after the other; attempts: has the one before when the next is asked for."""
    config = frontier.plan.config
    if config.size is not None:
        return _of_size(frontier)
    if config.kl is not None:
        return _for_kl(frontier, curve, config.kl, attempts)
    return _for_cer(curve, config, attempts)


def _of_size(frontier: Frontier) -> Iterator[Point]:
    """The best within the size, and then ever the best that is not much like those before."""
    points: list[Point] = []
    while (point := frontier.within(nbytes=frontier.plan.config.size, unlike=points)) is not None:
        points.append(point)
        yield point


def _for_kl(frontier: Frontier, curve: list[Point], wanted: float, attempts: list[Attempt]) -> Iterator[Point]:
    """The smallest that is predicted to hold a bound, and as that is measured, of a prediction put right by it."""
    good, bad, bound = 0.0, math.inf, wanted
    while True:
        point = _smallest(frontier, curve, bound)
        if all(attempt.point != point for attempt in attempts):
            yield point
            if attempts[-1].meets(frontier.plan.config):
                good = max(good, point.kl)
            else:
                bad = min(bad, point.kl)
        elif bound >= bad or bad == math.inf:
            return
        else:
            good = max(good, bound)
        if bad * (1 - NEAR) <= good:
            return
        bound = _corrected(wanted, attempts[-1])
        if not good < bound < bad:
            bound = wanted if bad == math.inf else (good + bad) / 2


def _smallest(frontier: Frontier, curve: list[Point], bound: float) -> Point:
    """The smallest of at most so much predicted KL; the one of least KL where only the original has so little."""
    point = frontier.within(kl=bound)
    if point is None or not frontier.quantizes(point):
        return min(curve, key=lambda point: point.kl)
    return point


def _corrected(wanted: float, last: Attempt) -> float:
    """What is to be predicted for a KL: what the prediction was off by at one point it is off by near it, too."""
    if last.tried is None or not last.tried.kl:
        return wanted
    return wanted * last.point.kl / last.tried.kl


def _for_cer(curve: list[Point], config: SearchConfig, attempts: list[Attempt]) -> Iterator[Point]:
    """Points of the curve towards where the bound begins to hold; nothing predicts a CER, so halve what is left."""
    bad, good = -1, len(curve)
    while bad + 1 < good:
        at = (bad + good) // 2
        yield curve[at]
        if attempts[-1].meets(config):
            good = at
        else:
            bad = at


def _nothing(config: SearchConfig, attempts: list[Attempt], curve: list[Point]) -> str:
    """What to say when nothing meets the budget."""
    tried = [attempt for attempt in attempts if attempt.tried is not None]
    if not tried:
        nearest = min(curve, key=lambda point: point.kl)
        return (
            f"--kl: these candidates are predicted to come no nearer than {nearest.kl:.2g}, with {size(nearest.nbytes)}"
        )
    return f"none of {len(tried)} recipes tried meets the budget; {_nearest(config, tried)}; more --trials go on"


def _nearest(config: SearchConfig, attempts: list[Attempt]) -> str:
    def worst(attempt: Attempt) -> tuple[bool, float]:
        found = attempt.tried
        if found is None:
            return True, 0.0
        return found.loops_more, found.kl if config.cer is None else found.cer_difference or 0.0

    nearest = min(attempts, key=worst)
    found = nearest.tried
    if found is None:
        return "nothing was measured"
    cer = "" if found.cer_difference is None else f", CER {100 * found.cer_difference:+.2f} points"
    loops = ", and more loops than the original" if found.loops_more else ""
    return f"the nearest has {size(nearest.point.nbytes)}, KL {found.kl:.2g}{cer}{loops}"
