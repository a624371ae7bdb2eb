"""Which recipe to take: the predicted best and its neighbours, tried."""

from __future__ import annotations

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
    steps = _of_size(frontier) if config.size is not None else None
    attempts: list[Attempt] = []
    good: list[Attempt] = []
    points = steps if steps is not None else _along(curve, config, attempts)
    for point in points:
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


def _of_size(frontier: Frontier) -> Iterator[Point]:
    """The best within the size, and then ever the best that is not much like those before."""
    points: list[Point] = []
    while (point := frontier.within(nbytes=frontier.plan.config.size, unlike=points)) is not None:
        points.append(point)
        yield point


def _along(curve: list[Point], config: SearchConfig, attempts: list[Attempt]) -> Iterator[Point]:
    """Points of the curve, from the one that is predicted to meet the budget on towards where it begins to be met."""
    bad, good = -1, len(curve)
    at = _predicted(curve, config, 1.0)
    while bad < at < good:
        yield curve[at]
        if attempts[-1].meets(config):
            good = at
        else:
            bad = at
        at = _next(curve, config, attempts[-1], bad, good)


def _next(curve: list[Point], config: SearchConfig, last: Attempt, bad: int, good: int) -> int:
    """Where to try next between the largest point that does not meet the budget and the smallest that does."""
    if config.kl is None or last.tried is None:
        return (bad + good + 1) // 2 if last.point is curve[bad] else (bad + good) // 2
    # What the prediction was off by at one point it is off by near it, too.
    found = _predicted(curve, config, last.tried.kl / last.point.kl if last.point.kl else 1.0)
    return min(max(found, bad + 1), max(good - 1, bad + 1))


def _predicted(curve: list[Point], config: SearchConfig, factor: float) -> int:
    """The first point to hold a bound of KL that is `factor` times what is predicted, or else the last."""
    if config.kl is None:
        # Nothing predicts a CER: halve what is left.
        return len(curve) // 2
    wanted = config.kl
    return next((index for index, point in enumerate(curve) if factor * point.kl <= wanted), len(curve) - 1)


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
