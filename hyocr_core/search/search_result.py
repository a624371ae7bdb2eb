"""What a search says, as it is printed and kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from pydantic import Field

from hyocr_core._version import __version__
from hyocr_core.contract.config import FrozenModel
from hyocr_core.resources import size
from hyocr_core.search.decision import Attempt, Decision
from hyocr_core.search.frontier import Frontier, Point
from hyocr_core.search.knapsack import Option
from hyocr_core.search.search_config import BUDGETS
from hyocr_core.search.search_record import Effect, Tried, group_name
from hyocr_core.wording import tr

SCHEMA = 1


class CurvePoint(FrozenModel):
    """A best choice of its size. nbytes: of the tensors of all weights. kl: predicted, nats per answer token."""

    nbytes: int
    kl: float


class TriedRecipe(CurvePoint):
    """A recipe that was quantized with and read. tried: what was measured; None where nothing was to be tried."""

    tried: Tried | None
    taken: bool


class GroupChoice(FrozenModel):
    """What a group of layers gets, and why."""

    layers: tuple[str, ...]
    candidate: str
    nbytes: int
    kl: float = Field(description="predicted, of this group alone, nats per answer token")
    error: float = Field(description="standard error of that over the pages")
    why: str


class SearchResult(FrozenModel):
    """The whole search."""

    schema_version: int = SCHEMA
    hyocr: str = __version__
    model: str
    data: str
    budget: dict[str, float] = Field(description="size in bytes, kl in nats per token, or cer in percentage points")
    recipe: str = Field(description="file that was written")
    nbytes: int = Field(description="bytes of the weights with the recipe")
    kl: float = Field(description="predicted: the sum over the groups, to second order")
    groups: tuple[GroupChoice, ...]
    tried: tuple[TriedRecipe, ...]
    curve: tuple[CurvePoint, ...]
    uniform: dict[str, CurvePoint] = Field(description="candidate -> the same for all groups that can have it")
    seconds: dict[str, float] = Field(description="wall time by phase")


def result_of(
    frontier: Frontier,
    decision: Decision,
    curve: list[Point],
    effects: Mapping[str, Mapping[str, Effect]],
    seconds: Mapping[str, float],
) -> SearchResult:
    """Put together what was found."""
    config, taken = frontier.plan.config, decision.taken.point
    return SearchResult(
        model=frontier.plan.job.source.name,
        data=config.data,
        budget={key: value for key in BUDGETS if (value := getattr(config, key)) is not None},
        recipe=str(Path(config.output)),
        nbytes=taken.nbytes,
        kl=taken.kl,
        groups=tuple(_groups(frontier, taken, effects)),
        tried=tuple(_tried(attempt, decision) for attempt in decision.attempts),
        curve=tuple(map(_point, curve)),
        uniform={name: _point(point) for name, point in frontier.uniform().items()},
        seconds=dict(seconds),
    )


def _point(point: Point) -> CurvePoint:
    return CurvePoint(nbytes=point.nbytes, kl=point.kl)


def _tried(attempt: Attempt, decision: Decision) -> TriedRecipe:
    point = attempt.point
    return TriedRecipe(nbytes=point.nbytes, kl=point.kl, tried=attempt.tried, taken=attempt is decision.taken)


def _groups(frontier: Frontier, taken: Point, effects: Mapping[str, Mapping[str, Effect]]) -> Iterator[GroupChoice]:
    for group, options in frontier.options.items():
        own = next(option for option in options if option.candidate == taken.chosen[group])
        effect = effects.get(group_name(group), {}).get(own.candidate)
        yield GroupChoice(
            layers=group,
            candidate=own.candidate,
            nbytes=own.nbytes,
            kl=own.kl,
            error=0.0 if effect is None else effect.error,
            why=tr("; ").join(reasons(own, options)) or tr("nothing else can be had"),
        )


def reasons(own: Option, options: Sequence[Option]) -> Iterator[str]:
    """What the next smaller and the next better choice would change."""
    smaller = [option for option in options if option.nbytes < own.nbytes]
    better = [option for option in options if option.kl < own.kl]
    if smaller:
        other = min(smaller, key=lambda option: option.kl)
        yield tr(
            "{candidate} would save {size} and cost {kl} more KL",
            candidate=other.candidate, size=size(own.nbytes - other.nbytes), kl=f"{other.kl - own.kl:.2g}",
        )  # fmt: skip
    if better:
        other = min(better, key=lambda option: option.nbytes)
        grown = other.nbytes - own.nbytes
        saved = {"candidate": other.candidate, "kl": f"{own.kl - other.kl:.2g}"}
        if grown > 0:
            yield tr("{candidate} would save {kl} of KL and take {size} more", **saved, size=size(grown))
        else:
            yield tr("{candidate} would save {kl} of KL and be no larger", **saved)
