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
    """Try the choice and its neighbours; raises ConfigError with the nearest when none of them meets the budget.

    curve: its points, but for the original itself. Under a size the one of least measured KL is taken, under a bound of
    KL or CER the smallest.
    """
    config = frontier.plan.config
    steps = _of_size(frontier) if config.size is not None else None
    attempts: list[Attempt] = []
    points = steps if steps is not None else _along(curve, config, attempts)
    for point in points:
        attempts.append(Attempt(point, tried(point.chosen) if config.trials else None))
        if len(attempts) >= max(config.trials, 1):
            break
    good = [attempt for attempt in attempts if attempt.meets(config)]
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
    if config.kl is not None:
        wanted = config.kl
        at = next((index for index, point in enumerate(curve) if point.kl <= wanted), len(curve) - 1)
    else:
        # Nothing predicts a CER: halve what is left.
        at = len(curve) // 2
    while bad < at < good:
        yield curve[at]
        if attempts[-1].meets(config):
            good = at
            at = at - 1 if config.kl is not None else (bad + good) // 2
        else:
            bad = at
            at = at + 1 if config.kl is not None else (bad + good + 1) // 2


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
