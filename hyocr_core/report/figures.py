"""The plots of the page: what of the evidence each shows."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from hyocr_core.evaluation.recorded.comparison import Several
from hyocr_core.evaluation.recorded.evidence import Evidence
from hyocr_core.evaluation.scores.numbers import RTN, number, percent, points, relative, size
from hyocr_core.evaluation.scores.result import EvalResult, ModelScore
from hyocr_core.evaluation.scores.speeds import BenchResult, ServedSpeed
from hyocr_core.models.spelling import tower_of
from hyocr_core.report import plots
from hyocr_core.report.curves import Line, lines
from hyocr_core.report.facts import BlockFacts, LayerFacts
from hyocr_core.report.plots import Choice, Plot, Row, Span, draw
from hyocr_core.wording import listed, tr

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = {"baseline": (plots.BASELINE, "s"), "rounded": (plots.ROUNDED, "D"), "model": (plots.MODEL, "o")}
"""Colour and mark of each checkpoint, the same in every plot."""


def labels(evidence: Evidence) -> dict[str, str]:
    """How the page calls the checkpoints of an evaluation."""
    return {"baseline": tr("baseline"), "rounded": tr(RTN), "model": evidence.report.title}


def scores(result: EvalResult) -> dict[str, ModelScore]:
    """The checkpoints that were read: baseline, rounded to nearest, and the model itself."""
    found = {"baseline": result.baseline, "rounded": result.rounded, "model": result.model}
    return {name: score for name, score in found.items() if score is not None}


def error_rates(evidence: Evidence) -> Plot | None:
    """CER with its interval; None where there are no transcripts."""
    if evidence.evaluation is None:
        return None
    rows = []
    for name, score in scores(evidence.evaluation).items():
        if score.cer is not None and score.cer_interval is not None:
            low, high = (100 * bound for bound in score.cer_interval)
            rows.append(Span(labels(evidence)[name], 100 * score.cer, low, high, *LOOKS[name], percent(score.cer)))
    if not rows:
        return None
    return _spans("cer", tr("Character error rate with 95 % intervals; to the left is better."), rows, "CER, %")


def differences(evidence: Evidence) -> Plot | None:
    """CER less the baseline's, with the paired interval; None without a baseline or transcripts."""
    result = evidence.evaluation
    if result is None:
        return None
    rows = []
    for name, compared in (("rounded", result.rounded_comparison), ("model", result.comparison)):
        if compared is None or compared.cer_difference is None or compared.cer_difference_interval is None:
            continue
        low, high = (100 * bound for bound in compared.cer_difference_interval)
        text = points(compared.cer_difference)
        rows.append(Span(labels(evidence)[name], 100 * compared.cer_difference, low, high, *LOOKS[name], text))
    if not rows:
        return None
    caption = tr("Difference to the baseline on the same pages, with paired 95 % intervals. At zero nothing was lost.")
    return _spans("cer-difference", caption, rows, tr("points of CER"), zero=True)


def _spans(name: str, caption: str, rows: Sequence[Span], unit: str, *, zero: bool = False) -> Plot:
    def paint(figure: Figure, _narrow: bool) -> None:
        plots.dots_and_intervals(figure, rows, unit, zero=zero)

    said = tr("; ").join(map(_span_in_words, rows))
    return draw(name, caption, f"{caption} {said}", paint, 62 + 48 * len(rows), plots.HALF)


def _span_in_words(row: Span) -> str:
    low, high = f"{row.low:.2f}", f"{row.high:.2f}"
    return tr("{label} {value} ({low} to {high})", label=row.label, value=row.text, low=low, high=high)


def blocks(facts: Sequence[BlockFacts], caption: str) -> Plot | None:
    """Error of every block in the order of the model, and the drift where it is known."""
    if not facts:
        return None
    towers: dict[str, list[BlockFacts]] = {}
    for fact in facts:
        towers.setdefault(tower_of(fact.name), []).append(fact)

    def paint(figure: Figure, _narrow: bool) -> None:
        plots.bars(figure, [_row(tower, members) for tower, members in towers.items()], tr("error, %"))

    worst = max(facts, key=lambda fact: fact.error)
    error = relative(worst.error)
    said = tr("{caption} The largest is {error} in {block}.", caption=caption, error=error, block=worst.name)
    return draw("blocks", caption, said, paint, 230 * len(towers))


def _row(tower: str, members: Sequence[BlockFacts]) -> Row:
    drift = [100 * fact.drift for fact in members if fact.drift is not None]
    return Row(
        values=[100 * fact.error for fact in members],
        ticks=[fact.name.rpartition(".")[2] for fact in members],
        line=drift if len(drift) == len(members) else None,
        label=tr("block of the {tower}", tower=tr(tower)),
    )


Value = Callable[[LayerFacts], float | None]


def by_kind(name: str, caption: str, unit: str, facts: Iterable[LayerFacts], value: Value, *, log: bool) -> Plot | None:
    """A value of every layer, in a row for each kind of layer; None where nothing is known."""
    rows: dict[str, list[tuple[float, str]]] = {}
    for fact in facts:
        found = value(fact)
        if found is not None and (found > 0 or not log):
            kind = tr("vision {kind}", kind=fact.kind) if tower_of(fact.name) == "vision tower" else fact.kind
            rows.setdefault(kind, []).append((found, fact.block.rpartition(".")[2]))
    if not rows:
        return None
    groups = [(kind, [found for found, _ in members], max(members)[1]) for kind, members in rows.items()]

    def paint(figure: Figure, _narrow: bool) -> None:
        plots.strips(figure, groups, unit, log=log)

    said = listed(f"{kind} {number(statistics.median(values))}" for kind, values, _ in groups)
    medians = tr("{caption} Medians: {medians}.", caption=caption, medians=said)
    return draw(name, caption, medians, paint, 56 + 30 * len(groups), plots.HALF)


def parts(evidence: Evidence) -> Plot | None:
    """Where the bytes are, before and after; None where no evaluation has counted them."""
    result = evidence.evaluation
    if result is None or not result.model.part_bytes:
        return None
    names = list(result.model.part_bytes)
    shown = [tr(name) for name in names]
    rows = [
        (label, [float(score.part_bytes[part]) for part in names], size(sum(score.part_bytes.values())))
        for label, score in ((tr("before"), result.baseline), (tr("after"), result.model))
        if score is not None and score.part_bytes.keys() == set(names)
    ]

    def paint(figure: Figure, narrow: bool) -> None:
        plots.stacks(figure, rows, shown, narrow=narrow)

    caption = tr("Bytes of the weights by part of the model.")
    said = "; ".join(
        f"{label}: {', '.join(f'{part} {size(value)}' for part, value in zip(shown, values, strict=True))}"
        for label, values, _ in rows
    )
    return draw("parts", caption, f"{caption} {said}", paint, 70 + 50 * len(rows))


def _choices(several: Several) -> Iterator[Choice]:
    for row in several.candidates:
        if row.weight_bytes is None or row.cer is None or row.cer_interval is None:
            continue
        low, high = (100 * bound for bound in row.cer_interval)
        looks = LOOKS["baseline" if row.kind == "baseline" else "model"]
        name = tr("baseline") if row.kind == "baseline" else row.name
        yield Choice(name, row.weight_bytes / 1e6, 100 * row.cer, low, high, row.front, *looks)


def beside(several: Several) -> Plot:
    """Size against CER of several quantizations."""
    rows = list(_choices(several))

    def paint(figure: Figure, _narrow: bool) -> None:
        plots.choices(figure, rows, (tr("weights, MB"), "CER, %"))

    caption = tr("Size against character error rate; down and to the left is better. Nothing beats the filled.")
    said = "; ".join(f"{row.label}: {row.megabytes:.1f} MB, {row.value:.2f} %" for row in rows)
    return draw("beside", caption, f"{caption} {said}", paint, 380)


def throughput(result: BenchResult, names: Mapping[str, str]) -> Plot:
    """Pages per second against pages at once. names: how the page calls the checkpoints."""
    rows = [_line(names[role], role, served) for role, served in result.served.items()]

    def paint(figure: Figure, _narrow: bool) -> None:
        lines(figure, rows, (tr("pages at once"), tr("pages per second")))

    caption = tr("Pages per second against pages at once: medians, and the least and the most that was measured.")
    said = "; ".join(f"{row.label}: {_points_of(row)}" for row in rows)
    return draw("throughput", caption, f"{caption} {said}", paint, 340)


def _points_of(row: Line) -> str:
    measured = zip(row.places, row.values, strict=True)
    return listed(tr("{value} at {place}", value=number(value), place=f"{place:g}") for place, value in measured)


def _line(label: str, role: str, served: ServedSpeed) -> Line:
    measured = [level.pages_per_second for level in served.levels]
    return Line(
        label,
        [level.at_once for level in served.levels],
        [statistics.median(values) for values in measured],
        [min(values) for values in measured],
        [max(values) for values in measured],
        *LOOKS[role],
    )
