"""The curve of size against KL: at each of many sizes, the best choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hyocr_core.search.knapsack import Bound, Chosen, Option, Options, best, total
from hyocr_core.search.search_plan import SearchPlan
from hyocr_core.search.search_record import Effect, group_name
from hyocr_core.settings.recipe import NONE

POINTS = 32


@dataclass(frozen=True)
class Point:
    """A choice. nbytes: of all weights. kl: what the sensitivity pass predicts, nats per token."""

    chosen: Chosen
    nbytes: int
    kl: float


@dataclass(frozen=True)
class Frontier:
    """What can be had. plan: the sizes. options: what each group may get."""

    plan: SearchPlan
    options: Options

    @classmethod
    def of(cls, plan: SearchPlan, effects: Mapping[str, Mapping[str, Effect]]) -> Frontier:
        """effects: by group and candidate, as the sensitivity pass has found them."""
        options: dict[tuple[str, ...], list[Option]] = {}
        for group, sizes in plan.nbytes.items():
            found = effects.get(group_name(group), {})
            options[group] = [
                Option(name, nbytes, 0.0 if name == NONE else found[name].kl) for name, nbytes in sizes.items()
            ]
        return cls(plan, options)

    def within(
        self, *, nbytes: int | None = None, kl: float | None = None, unlike: Sequence[Point] = ()
    ) -> Point | None:
        """The best whose weights have at most so many bytes, or whose predicted KL is at most `kl`; None: none is.

        unlike: points from which a sixteenth of the groups, and one at least, is to differ.
        """
        bound = Bound(None if nbytes is None else nbytes - self.plan.kept_bytes, kl)
        apart = max(1, len(self.options) // 16)
        chosen = best(self.options, bound, [point.chosen for point in unlike], apart)
        return None if chosen is None else self.point(chosen)

    def quantizes(self, point: Point) -> bool:
        """Whether any group gets another candidate than none."""
        return any(name != NONE for name in point.chosen.values())

    def point(self, chosen: Chosen) -> Point:
        """What is known of a choice."""
        found = total(self.options, chosen)
        return Point(chosen, self.plan.kept_bytes + found.nbytes, found.kl)

    def curve(self) -> list[Point]:
        """The best at sizes that are evenly spaced from the smallest to the largest; each choice once."""
        smallest, largest = self.plan.range
        sizes = [smallest + round(step * (largest - smallest) / (POINTS - 1)) for step in range(POINTS)]
        points = [point for nbytes in sizes if (point := self.within(nbytes=nbytes)) is not None]
        return list({(point.nbytes, point.kl): point for point in points}.values())

    def uniform(self) -> dict[str, Point]:
        """Candidate -> the same one for all groups, of those that every group can have."""
        names = {option.candidate for own in self.options.values() for option in own}
        shared = [n for n in names if all(any(o.candidate == n for o in own) for own in self.options.values())]
        return {name: self.point(dict.fromkeys(self.options, name)) for name in sorted(shared)}
