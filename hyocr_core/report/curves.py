"""Plots of lines that join points: what is measured at several places, and the edge of a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from hyocr_core.report.plots import MUTED, WORST, frame, logarithmic, short, spread_ticks

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Line:
    """One line of points, each with the least and the most of what was measured there."""

    label: str
    places: Sequence[float]
    values: Sequence[float]
    least: Sequence[float]
    most: Sequence[float]
    colour: str
    marker: str


def lines(figure: Figure, rows: Sequence[Line], units: tuple[str, str]) -> None:
    """Lines over places that double, from zero on."""
    axes = figure.subplots()
    frame(figure, 56, top=36)
    places = sorted({place for row in rows for place in row.places})
    axes.set_xscale("log", base=2)
    for row in rows:
        axes.vlines(row.places, row.least, row.most, color=row.colour, linewidth=5, alpha=0.35)
        axes.plot(
            row.places,
            row.values,
            color=row.colour,
            marker=row.marker,
            markersize=8,
            linewidth=2,
            label=short(row.label),
        )
    axes.set_xticks(places, [f"{place:g}" for place in places], minor=False)
    axes.set_xticks([], minor=True)
    axes.margins(x=0.08)
    axes.set_ylim(0, 1.1 * max(most for row in rows for most in row.most))
    _name_axes(axes, units)
    figure.legend(loc="upper left", bbox_to_anchor=(0, 1), ncols=len(rows), borderaxespad=0)


@dataclass(frozen=True)
class Mark:
    """A point beside a curve. colour: one of the names above; marker: Matplotlib's. alone: named where it is."""

    label: str
    x: float
    y: float
    colour: str
    marker: str
    alone: bool


class Edge(NamedTuple):
    """Where a budget ends, on either axis."""

    x: float | None
    y: float | None


def curve(
    figure: Figure, line: Sequence[tuple[float, float]], marks: Sequence[Mark], edge: Edge, units: tuple[str, str]
) -> None:
    """A falling curve, points beside it, and the edge of a budget; what is zero is left out of the logarithmic axis."""
    axes = figure.subplots()
    frame(figure, 72, top=36)
    shown, above = [point for point in line if point[1] > 0], [mark for mark in marks if mark.y > 0]
    axes.plot(*zip(*shown, strict=True), color=MUTED, marker=".", linewidth=1.5)
    named: set[str] = set()
    for mark in above:
        label = "" if mark.alone or mark.label in named else mark.label
        named.add(mark.label)
        axes.plot(mark.x, mark.y, color=mark.colour, marker=mark.marker, markersize=9, linestyle="none", label=label)
        if mark.alone:
            axes.annotate(short(mark.label), (mark.x, mark.y), (9, 6), textcoords="offset points", fontsize=11)
    if edge.x is not None:
        axes.axvline(edge.x, color=WORST, linewidth=1, linestyle="--")
    if edge.y:
        axes.axhline(edge.y, color=WORST, linewidth=1, linestyle="--")
    heights = [y for _, y in shown] + [mark.y for mark in above]
    if heights:
        logarithmic(axes.yaxis, heights)
    axes.margins(x=0.15, y=0.15)
    spread_ticks(axes)
    _name_axes(axes, units)
    if axes.get_legend_handles_labels()[1]:
        figure.legend(loc="upper left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)


def _name_axes(axes: Axes, units: tuple[str, str]) -> None:
    axes.set_xlabel(units[0])
    axes.set_ylabel(units[1])
    axes.tick_params(axis="y", labelcolor=MUTED)
    axes.grid()
