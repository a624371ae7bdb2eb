"""The page of a search: the curve of size against KL, and a table of what every group got and why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from hyocr_core._version import __version__
from hyocr_core.checkpoint.output_file import write_output
from hyocr_core.report import curves, plots
from hyocr_core.report.plots import Plot, draw
from hyocr_core.report.rendered import rendered
from hyocr_core.wording import tr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = {"uniform": (plots.ROUNDED, "D"), "tried": (plots.MUTED, "o"), "taken": (plots.MODEL, "o")}


@dataclass(frozen=True)
class Dot:
    """A recipe beside the curve. megabytes: of its weights. kl: nats per token."""

    label: str
    megabytes: float
    kl: float
    kind: Literal["uniform", "tried", "taken"]


def write_search_page(result: Mapping[str, Any], dots: Sequence[Dot], path: Path) -> None:
    """Write the page of a search's result, as `SearchResult` dumps it, in the language that is spoken.

    Raises RunError when it cannot be written.
    """
    context = {"result": result, "plots": {"curve": _curve(result, dots)}, "version": __version__}
    write_output(path, rendered("search.html.j2", context))


def _curve(result: Mapping[str, Any], dots: Sequence[Dot]) -> Plot:
    line = [(point["nbytes"] / 1e6, point["kl"]) for point in result["curve"]]
    budget = {"size": result["budget"].get("size"), "kl": result["budget"].get("kl")}
    edge = curves.Edge(None if budget["size"] is None else budget["size"] / 1e6, budget["kl"])
    # The one that was taken lies above those beside it.
    marks = [
        curves.Mark(dot.label, dot.megabytes, dot.kl, *LOOKS[dot.kind], dot.kind == "uniform")
        for dot in sorted(dots, key=lambda dot: dot.kind == "taken")
    ]

    def paint(figure: Figure, _narrow: bool) -> None:
        curves.curve(figure, line, marks, edge, (tr("weights, MB"), tr("KL, nats per token")))

    caption = tr(
        "Size of the weights against KL. The line is the best that is predicted for each size; what was tried is where "
        "it was measured. The dashed line is the budget."
    )
    said = "; ".join(f"{dot.label}: {dot.megabytes:.1f} MB, {dot.kl:.2g}" for dot in dots)
    return draw("curve", caption, f"{caption} {said}", paint, 380)
