"""The report of a checkpoint as one page that needs nothing else: no network, no script, no file beside it."""

from __future__ import annotations

import base64
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyocr_core.checkpoint.durable import writing
from hyocr_core.checkpoint.output_file import REPORT, check_output, write_output
from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.evaluation.recorded.comparison import Several, side_by_side
from hyocr_core.evaluation.recorded.evidence import Evidence, gather
from hyocr_core.evaluation.recorded.record_folder import Recorded, load_original
from hyocr_core.evaluation.recorded.worst import worst_pages
from hyocr_core.evaluation.scores.conclusion import in_words
from hyocr_core.evaluation.scores.gate import AT_LEAST
from hyocr_core.evaluation.scores.result import PageResult
from hyocr_core.outside.regular import read_regular
from hyocr_core.report import figures, glance
from hyocr_core.report.by_part import parts
from hyocr_core.report.diff import Piece, diff, shortened
from hyocr_core.report.facts import block_facts, layer_facts, own_metric
from hyocr_core.report.kinds import kinds_of
from hyocr_core.report.plots import Plot
from hyocr_core.report.rendered import MARKS, rendered
from hyocr_core.wording import Language, phrase, speaking, tr

FILE_NAME = "index.html"
SHOWN_BLOCKS = 5


@dataclass(frozen=True)
class Reading:
    """What one checkpoint made of a page, as stretches that differ from the reference or not."""

    label: str
    errors: int | None
    loop: bool
    pieces: list[Piece]


@dataclass(frozen=True)
class ShownPage:
    """One of the worst pages. image: as a data URI, None where none was kept. against: what the diffs start from."""

    page: PageResult
    image: str | None
    against: str
    readings: list[Reading]


def write_page(
    folder: Path,
    others: Sequence[Path] = (),
    *,
    output: Path | None = None,
    cross_runtime: bool = False,
    chosen: str | None = None,
    lang: Language | None = None,
) -> Path:
    """Write the page of a checkpoint to its report/index.html, or to `output`; return where it is.

    folder: what hyocr wrote, with or without a recorded evaluation. others: quantizations of the same model to put
    beside it, see `hyocr_core.evaluation.recorded.comparison.side_by_side`, which also explains cross_runtime.
    chosen: the evaluation to tell of; None: that of most pages.
    lang: what it is written in; None for the language of the model card.
    The same evidence gives the same bytes. Raises CheckpointError for a folder that hyocr did not write, BadInputError
    for what cannot be compared, OutputError as `check_page`, RunError when the page cannot be written.
    """
    evidence = gather(folder, chosen)
    path = folder / REPORT / FILE_NAME if output is None else output
    if output is None:
        check_page(folder)
    else:
        check_output(output, *MARKS)
    with speaking(lang or evidence.report.lang):
        html = render(evidence, side_by_side([folder, *others], cross_runtime=cross_runtime) if others else None)
    if output is None:
        with writing(path):
            path.parent.mkdir(exist_ok=True)
    write_output(path, html)
    return path


def check_page(folder: Path) -> None:
    """Raise OutputError if something else lies where the page of a checkpoint belongs."""
    if (folder / REPORT).exists():
        check_output(folder / REPORT / FILE_NAME, *MARKS)


def render(evidence: Evidence, several: Several | None = None) -> str:
    """The text of the page."""
    return rendered("page.html.j2", _context(evidence, several))


def _context(evidence: Evidence, several: Several | None) -> dict[str, Any]:
    result, report, recorded = evidence.evaluation, evidence.report, evidence.recorded
    layers = layer_facts(evidence)
    blocks = block_facts(evidence, layers)
    worst = [] if result is None else [(index, result.pages[index]) for index in worst_pages(result)]
    return {
        "evidence": evidence,
        "report": report,
        "result": result,
        "verdict": result and in_words(result),
        "labels": figures.labels(evidence),
        "scores": {} if result is None else figures.scores(result),
        "answers": [
            *(glance.faster(evidence), glance.smaller(evidence), glance.worse(evidence)),
            glance.where(blocks, evidence, worst),
        ],
        "layers": layers,
        "ranked": sorted(blocks, key=lambda fact: fact.error, reverse=True)[:SHOWN_BLOCKS],
        "measured_blocks": result is not None and bool(result.blocks),
        "metric": own_metric(report),
        "metrics": _metrics(report, measured=result is not None and bool(result.layers)),
        "plots": _plots(evidence, layers, blocks, several),
        "parts": [] if result is None else parts(result),
        "worst": [] if recorded is None else [_shown(evidence, recorded, index) for index, _ in worst],
        "commands": {
            tr("Quantized by"): evidence.command,
            tr("Evaluated by"): recorded and recorded.command,
            tr("Speed measured by"): evidence.bench_command,
        },
        "bench": evidence.bench,
        "further": evidence.others,
        "measure": _measure(evidence),
        "measure_speed": _measure_speed(evidence),
        "several": several,
        "ours": evidence.name,
        "kinds": kinds_of(report),
        "at_least": AT_LEAST,
    }


def _metrics(report: QuantReport, *, measured: bool) -> list[str]:
    """The method's own measures of layers, but for what an evaluation has measured: one thing has one column."""
    found = dict.fromkeys(name for layer in report.layers for name in layer.metrics)
    return [name for name in found if not (measured and name == "weight_error")]


def _measure(evidence: Evidence) -> str:
    """The command that gives the numbers, to be pasted on this machine."""
    original = load_original(evidence.folder)
    baseline = evidence.report.model.typed if original is None else str(original)
    name, baseline = shlex.quote(str(evidence.folder.resolve())), shlex.quote(baseline)
    return f"hyocr eval {name} --data your-pages/ --baseline {baseline} --record"


def _measure_speed(evidence: Evidence) -> str:
    """The command that gives its speed."""
    name, baseline = shlex.quote(evidence.name), shlex.quote(evidence.report.model.source)
    return f"hyocr bench {name} --baseline {baseline} --backend vllm --record"


def _plots(evidence: Evidence, layers: Any, blocks: Any, several: Several | None) -> dict[str, Plot]:
    measured = evidence.evaluation is not None and bool(evidence.evaluation.layers)
    pages = tr("on some of the pages") if measured else tr("by the method's own measure, on its calibration pages")
    of_outputs = phrase("Error of each block's output, given the same input, {pages}.")
    of_layers = phrase("Error of the layers of each block, {pages}.")
    of_kinds = phrase("Error of every layer by kind, {pages}; the tick is the median, the number the worst block.")
    drawn = {
        "cer": figures.error_rates(evidence),
        "difference": figures.differences(evidence),
        "blocks": figures.blocks(blocks, tr(of_outputs if measured else of_layers, pages=pages)),
        "kinds": figures.by_kind(
            "kinds", tr(of_kinds, pages=pages), tr("error, %"), layers,
            lambda layer: None if layer.error is None else 100 * layer.error, log=False,
        ),
        "weights": figures.by_kind(
            "weights", tr("Largest absolute weight of every layer, before."), tr("largest weight"), layers,
            lambda layer: layer.weight_max, log=True,
        ),
        "inputs": figures.by_kind(
            "inputs", tr("Largest absolute input of every layer on the pages."), tr("largest input"), layers,
            lambda layer: layer.input_max, log=True,
        ),
        "condition": figures.by_kind(
            "condition", tr("Condition of the damped Hessian: how uneven a layer's inputs are."),
            tr("condition number"), layers, lambda layer: layer.metrics.get("hessian_condition"), log=True,
        ),
        "ratio": figures.by_kind(
            "ratio", tr("Share of the activations' scale that was moved into the weights."), tr("ratio"), layers,
            lambda layer: layer.metrics.get("ratio"), log=False,
        ),
        "parts": figures.parts(evidence),
        "throughput": None if evidence.bench is None else figures.throughput(evidence.bench, figures.labels(evidence)),
        "beside": None if several is None else figures.beside(several),
    }  # fmt: skip
    return {name: plot for name, plot in drawn.items() if plot is not None}


def _shown(evidence: Evidence, recorded: Recorded, index: int) -> ShownPage:
    page, names = recorded.result.pages[index], figures.labels(evidence)
    readings = []
    start = page.reference if page.reference is not None else page.baseline_text
    if page.reference is not None and page.baseline_text is not None:
        pieces = shortened(diff(page.reference, page.baseline_text))
        readings.append(Reading(names["baseline"], page.baseline_errors, bool(page.baseline_loop), pieces))
    pieces = shortened(diff(page.text if start is None else start, page.text))
    readings.append(Reading(names["model"], page.errors, page.loop, pieces))
    against = tr("reference") if page.reference is not None else names["baseline"]
    return ShownPage(page, _image(recorded.images / f"{index:05d}.webp"), against, readings)


def _image(path: Path) -> str | None:
    if not path.is_file():
        return None
    return f"data:image/webp;base64,{base64.b64encode(read_regular(path)).decode()}"
