"""What `hyocr search` prints."""

from __future__ import annotations

from collections.abc import Iterator

from rich.table import Table

from hyocr_core.evaluation.scores.numbers import number, percent, points, size
from hyocr_core.formats.runtimes import VISION
from hyocr_core.search.search_plan import SearchPlan
from hyocr_core.search.search_result import SearchResult
from hyocr_core.shown import message, together


def candidates_table(result: SearchResult) -> Table:
    """A row for each candidate that was taken: how many groups of layers get it, their size, and what they cost."""
    table = Table(box=None, pad_edge=False)
    for heading in ("groups of layers get", "vision", "decoder", "size", "KL predicted"):
        table.add_column(heading)
    for name in dict.fromkeys(row.candidate for row in result.groups):
        own = [row for row in result.groups if row.candidate == name]
        seeing = sum(row.layers[0].startswith(VISION) for row in own)
        kl, nbytes = sum(row.kl for row in own), sum(row.nbytes for row in own)
        table.add_row(name, str(seeing), str(len(own) - seeing), size(nbytes), number(kl))
    return table


def groups_table(result: SearchResult) -> Table:
    """A row for each group of layers: what it gets, and why."""
    table = Table(box=None, pad_edge=False)
    for heading in ("layers", "gets", "size", "KL", "why"):
        table.add_column(heading)
    for row in result.groups:
        table.add_row(
            message(together(row.layers)),
            row.candidate,
            size(row.nbytes),
            f"{number(row.kl)} ± {number(row.error)}",
            row.why,
        )
    return table


def tried_table(result: SearchResult) -> Table:
    """A row for each recipe that was tried."""
    table = Table(box=None, pad_edge=False)
    for heading in ("recipe", "weights", "KL predicted", "KL", "CER difference", "loops"):
        table.add_column(heading)
    for index, row in enumerate(result.tried, 1):
        name = f"{index}, taken" if row.taken else str(index)
        found = row.tried
        measured = (
            ("not tried", "", "")
            if found is None
            else (number(found.kl), points(found.cer_difference), percent(found.loop_rate))
        )
        table.add_row(name, size(row.nbytes), number(row.kl), *measured)
    return table


def plan_lines(plan: SearchPlan) -> Iterator[str]:
    """What a search would do."""
    config = plan.config
    smallest, largest = plan.range
    yield f"{len(plan.nbytes)} groups of layers; each gets one of: {', '.join(config.candidates)}"
    yield f"weights from {size(smallest)} to {size(largest)}; {size(plan.kept_bytes)} of them stay as they are"
    others = len(plan.job.records) - plan.calibrated
    pages = f"{plan.calibrated} pages of {config.data} to calibrate on, {others} others to measure the change of KL on"
    yield pages + (", with answers that the model writes" if plan.job.lacks_answers else "")
    yield f"then {config.trials} recipes tried on {config.eval or 'those others'}; the recipe goes to {config.output}"
