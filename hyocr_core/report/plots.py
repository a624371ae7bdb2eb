"""Plots as SVG for the inside of a page: they take their colours and their font from it. Needs no display."""

from __future__ import annotations

import io
import re
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from markupsafe import Markup, escape

from hyocr_core.shown import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import XAxis, YAxis
    from matplotlib.figure import Figure

INK, MUTED, LINE, BASELINE, ROUNDED, MODEL, WORST, *PARTS = (f"#0000{number:02x}" for number in range(1, 13))
"""Stand-ins for the colours of the page: Matplotlib knows no CSS."""
_VARIABLES = dict(
    zip(
        (INK, MUTED, LINE, BASELINE, ROUNDED, MODEL, WORST, *PARTS),
        ("ink", "muted", "line", "baseline", "rounded", "model", "worst", "part-1", "part-2", "part-3", "part-4"),
        strict=False,
    )
)
FULL, HALF, NARROW = 920, 440, 320
"""Widths in pixels: of the page, of half of it, of a phone."""

_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.size": 12.0,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.labelsize": 12.0,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "text.color": INK,
    "xtick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.color": LINE,
    "ytick.labelcolor": INK,
    "ytick.left": False,
    "grid.color": LINE,
    "grid.linewidth": 1.0,
    "legend.frameon": False,
}

_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

_LETTER = 7.2
"""Pixels that a letter of a label takes at most, on average."""
_LETTERS = 22
_TICKS = 8
_BELOW = 44
"""Pixels for the ticks and the label of a horizontal axis."""

Paint = Callable[["Figure", bool], None]
"""Draws on a figure; the flag says whether it is the narrow one."""


@dataclass(frozen=True)
class Plot:
    """The same plot for a wide and for a narrow screen. label: what it says, for those who do not see it."""

    label: str
    caption: str
    wide: Markup
    narrow: Markup


def draw(name: str, caption: str, label: str, paint: Paint, height: int, width: int = FULL) -> Plot:
    """Draw a plot for both screens.

    name: unique on the page. height: in pixels. The same input gives the same bytes, whatever the user's matplotlibrc.
    """
    wide, narrow = (
        _svg(f"{name}-{kind}", label, paint, (pixels, height), kind == "narrow")
        for kind, pixels in (("wide", width), ("narrow", NARROW))
    )
    return Plot(label, caption, wide, narrow)


def frame(figure: Figure, left: float, right: float = 16, top: float = 12, bottom: float = _BELOW) -> None:
    """Leave this many pixels around the axes. Said, not found: Matplotlib would draw everything twice to find it."""
    width, height = 72 * figure.get_size_inches()
    figure.subplots_adjust(left / width, bottom / height, 1 - right / width, 1 - top / height)


def _room(labels: Iterable[str]) -> float:
    """Pixels for labels to the left of the axes."""
    return 10 + _LETTER * max(map(_letters, labels))


def _letters(label: str) -> float:
    """As many letters as it is wide: a Chinese one takes the room of five thirds."""
    return sum(5 / 3 if unicodedata.east_asian_width(character) in "WF" else 1 for character in label)


def short(label: str) -> str:
    """A label that leaves room for what it names; what a checkpoint is called can be anything."""
    shown = visible(label).replace("\n", " ")
    return shown if len(shown) <= _LETTERS else f"{shown[: _LETTERS // 2]}…{shown[-(_LETTERS // 2) :]}"


def _svg(name: str, label: str, paint: Paint, size: tuple[int, int], narrow: bool) -> Markup:
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(), warnings.catch_warnings():
        # The font of the page draws what Matplotlib's own, which only measures, has no glyph for.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE | {"svg.hashsalt": name})
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), dpi=72)
        FigureCanvasSVG(figure)
        paint(figure, narrow)
        text = io.StringIO()
        figure.savefig(text, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return _inline(text.getvalue(), label, size)


def _inline(svg: str, label: str, size: tuple[int, int]) -> Markup:
    """What Matplotlib wrote as a part of an HTML page."""
    body = svg[svg.index(">", svg.index("<svg")) + 1 :]
    body = re.sub(r"<metadata>.*?</metadata>|<style[^>]*>.*?</style>|<!--.*?-->", "", body, flags=re.DOTALL)
    body = body.replace("xlink:href", "href")
    body = re.sub(r' id="([^"]*)"', lambda match: match[0] if f"#{match[1]}" in body else "", body)
    body = re.sub(r"font: (?:[a-z0-9]+ )*?([0-9.]+px) [^;\"]*", r"font-size: \1", body)
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, f"var(--{variable})")
    width, height = size
    head = f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" aria-label="{{}}">'
    return Markup(head).format(escape(visible(label))) + Markup(body)  # noqa: S704  (Matplotlib escapes labels)


@dataclass(frozen=True)
class Span:
    """A value with its interval. colour: one of the names above; marker: Matplotlib's."""

    label: str
    value: float
    low: float
    high: float
    colour: str
    marker: str
    text: str


def dots_and_intervals(figure: Figure, rows: Sequence[Span], unit: str, *, zero: bool = False) -> None:
    """One row for each value: a mark on its interval, and the value in words."""
    axes = figure.subplots()
    frame(figure, _room(short(row.label) for row in rows))
    for y, row in enumerate(reversed(rows)):
        axes.plot([row.low, row.high], [y, y], color=row.colour, linewidth=6, alpha=0.35, solid_capstyle="round")
        axes.plot([row.value], [y], color=row.colour, marker=row.marker, markersize=9, linestyle="none")
        axes.annotate(row.text, (row.value, y), (0, 9), textcoords="offset points", ha="center", va="bottom")
    axes.set_yticks(range(len(rows)), [short(row.label) for row in reversed(rows)])
    axes.set_ylim(-0.5, len(rows) - 0.25)
    axes.margins(x=0.12)
    if zero:
        axes.axvline(0, color=MUTED, linewidth=1)
    spread_ticks(axes)
    axes.set_xlabel(unit)
    axes.grid(axis="x")


def spread_ticks(axes: Axes) -> None:
    """Give the horizontal axis no more ticks than there is room for their labels, which Matplotlib takes for short."""
    from matplotlib.ticker import MaxNLocator, ScalarFormatter

    axes.xaxis.set_major_formatter(ScalarFormatter(useOffset=False))
    low, high = axes.get_xlim()
    pixels = axes.bbox.width / (high - low)
    for most in range(_TICKS, 0, -1):
        locator = MaxNLocator(most, steps=[1, 2, 5, 10])
        axes.xaxis.set_major_locator(locator)
        first, second, *_ = ticks = list(locator.tick_values(low, high))
        labels = axes.xaxis.get_major_formatter().format_ticks(ticks)
        if _room(labels) <= pixels * (second - first):
            break


@dataclass(frozen=True)
class Row:
    """One row of upright bars. line: lies over them, if it is known."""

    values: Sequence[float]
    ticks: Sequence[str]
    line: Sequence[float] | None
    label: str


def bars(figure: Figure, rows: Sequence[Row], unit: str) -> None:
    """A row of bars for each of `rows`, the highest bar of each marked."""
    frame(figure, 52)
    panel = 72 * figure.get_size_inches()[1] / len(rows) - _BELOW - 12
    figure.subplots_adjust(hspace=(_BELOW + 12) / panel)
    for axes, row in zip(figure.subplots(len(rows), squeeze=False)[:, 0], rows, strict=True):
        _bars(axes, row.values, row.ticks, row.line, unit)
        axes.set_xlabel(row.label)


def _bars(axes: Axes, values: Sequence[float], ticks: Sequence[str], line: Sequence[float] | None, unit: str) -> None:
    worst = max(range(len(values)), key=values.__getitem__)
    places = range(len(values))
    colours = [WORST if place == worst else MODEL for place in places]
    axes.bar(places, values, color=colours, width=0.72 if len(values) > 8 else 0.4)
    if line is not None:
        axes.plot(places, line, color=INK, marker="o", markersize=4, linewidth=1.5)
    step = -(-len(ticks) // 16)
    axes.set_xticks(places[::step], [short(tick) for tick in ticks[::step]])
    axes.set_xlim(-0.6, len(values) - 0.4)
    axes.set_ylim(bottom=0)
    axes.tick_params(axis="y", labelcolor=MUTED)
    axes.set_ylabel(unit)
    axes.grid(axis="y")


def strips(figure: Figure, groups: Sequence[tuple[str, Sequence[float], str]], unit: str, *, log: bool) -> None:
    """One row for each group: a dot for each value, a tick at the median, and the name of the largest.

    groups: label, values, what the largest is.
    """
    import numpy as np

    axes = figure.subplots()
    frame(figure, _room(short(label) for label, _, _ in groups), right=30)
    for y, (_, values, name) in enumerate(reversed(groups)):
        axes.plot(values, [y] * len(values), color=MODEL, marker="o", markersize=7, alpha=0.55, linestyle="none")
        axes.plot([float(np.median(values))], [y], color=INK, marker="|", markersize=16, markeredgewidth=2)
        axes.annotate(
            short(name), (max(values), y), (8, 0), textcoords="offset points", va="center", color=MUTED, fontsize=11
        )
    axes.set_yticks(range(len(groups)), [short(label) for label, _, _ in reversed(groups)])
    axes.set_ylim(-0.6, len(groups) - 0.4)
    if log:
        logarithmic(axes.xaxis, [value for _, values, _ in groups for value in values])
    else:
        axes.set_xlim(left=0)
        spread_ticks(axes)
    axes.set_xlabel(unit)
    axes.grid(axis="x")


def logarithmic(axis: XAxis | YAxis, values: Sequence[float]) -> None:
    """Let an axis grow by factors; values: what it shows."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    axis.axes.set(**{f"{axis.axis_name}scale": "log"})
    decades = max(values) / min(values) > 30
    axis.set_major_locator(LogLocator(subs=(1.0,) if decades else (1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: _power(value)))
    axis.set_minor_formatter(NullFormatter())


def _power(value: float) -> str:
    """0.01, 100, 10⁴, 2·10⁻⁵: no longer than fits beside its neighbours."""
    if 1e-3 <= value < 1e4:
        return f"{value:g}"
    digits, exponent = f"{value:.0e}".split("e")
    return f"{'' if digits == '1' else f'{digits}·'}10{str(int(exponent)).translate(_SUPERSCRIPT)}"


def stacks(
    figure: Figure, rows: Sequence[tuple[str, Sequence[float], str]], parts: Sequence[str], *, narrow: bool
) -> None:
    """One lying bar for each row, made of the same parts. rows: label, value of each part, the sum in words."""
    axes = figure.subplots()
    frame(figure, _room(short(label) for label, _, _ in rows), top=48 if narrow else 30, bottom=4)
    for place, part in enumerate(parts):
        for y, (_, values, _) in enumerate(reversed(rows)):
            label = short(part) if y == 0 else None
            axes.barh(y, values[place], left=sum(values[:place]), height=0.56, color=PARTS[place], label=label)
    for y, (_, values, total) in enumerate(reversed(rows)):
        axes.annotate(total, (sum(values), y), (6, 0), textcoords="offset points", va="center")
    axes.set_yticks(range(len(rows)), [short(label) for label, _, _ in reversed(rows)])
    axes.set_ylim(-0.5, len(rows) - 0.5)
    axes.set_xlim(0, 1.3 * max(sum(values) for _, values, _ in rows))
    columns = 2 if narrow else 4
    figure.legend(
        loc="upper left", bbox_to_anchor=(0, 1), ncols=columns, handlelength=1, handleheight=1, borderaxespad=0
    )
    axes.xaxis.set_visible(False)
    axes.spines["bottom"].set_visible(False)


@dataclass(frozen=True)
class Choice:
    """One checkpoint of several: how large it is and how it reads. front: no other is both smaller and better."""

    label: str
    megabytes: float
    value: float
    low: float
    high: float
    front: bool
    colour: str
    marker: str


def _label_heights(points: Sequence[Choice]) -> Iterator[tuple[Choice, float]]:
    """From the lowest on, each with the height of its label, which stands clear of those beside it."""
    width = max(point.megabytes for point in points) - min(point.megabytes for point in points)
    line = 0.07 * (max(point.high for point in points) - min(point.low for point in points))
    placed: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: point.value):
        height = point.value
        for place, other in placed:
            if abs(place - point.megabytes) <= 0.6 * width and abs(other - height) < line:
                height = other + line
        placed = sorted([*placed, (point.megabytes, height)], key=lambda label: label[1])
        yield point, height


def choices(figure: Figure, points: Sequence[Choice], units: tuple[str, str]) -> None:
    """Size against error; those that are on the front are joined and filled."""
    axes = figure.subplots()
    frame(figure, 56)
    front = sorted((point.megabytes, point.value) for point in points if point.front)
    axes.step([x for x, _ in front], [y for _, y in front], where="post", color=MUTED, linewidth=1.5, linestyle=":")
    for point in points:
        axes.plot([point.megabytes] * 2, [point.low, point.high], color=point.colour, linewidth=5, alpha=0.3)
        fill = point.colour if point.front else "none"
        axes.plot(
            point.megabytes, point.value, color=point.colour, marker=point.marker, markersize=9, markerfacecolor=fill
        )
    for point, height in _label_heights(points):
        axes.annotate(short(point.label), (point.megabytes, height), (9, 6), textcoords="offset points", fontsize=11)
    axes.margins(x=0.2, y=0.15)
    spread_ticks(axes)
    axes.set_xlabel(units[0])
    axes.set_ylabel(units[1])
    axes.tick_params(axis="y", labelcolor=MUTED)
    axes.grid()
