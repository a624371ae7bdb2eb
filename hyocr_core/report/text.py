"""How foreign text is written on the page."""

from __future__ import annotations

import json
import re
from pathlib import Path

from hyocr_core.checkpoint.quant_report import CalibrationRecord, EvaluationRecord
from hyocr_core.evaluation.scores.numbers import count
from hyocr_core.evaluation.scores.result import EvalResult, ModelScore
from hyocr_core.evaluation.scores.speeds import ServedSpeed
from hyocr_core.shown import visible
from hyocr_core.wording import phrase, tr

_SHOWN = 200
"""Letters of a system message; all of it is in the report."""
# A folder needs a name behind its slash, so that fractions and "and/or" stay as they are.
# In quotes a path may hold spaces.
_QUOTED = re.compile(r"""(?<=['"])[~.]{0,2}/[^'"]*/(?=[^/'"]+['"])""")
_FOLDERS = re.compile(r"(?<![\w./~])(?:~|\.{1,2})?/(?:[^\s/'\"]+/)+(?=[^\s/'\"])")


def told(record: EvalResult | EvaluationRecord | CalibrationRecord) -> str:
    """What pages were asked, and how many have transcripts, to be said behind them; nothing where it is the default."""
    task = "" if record.task is None else tr(", asked {task}", task=record.task)
    if not isinstance(record, CalibrationRecord):
        task = f"{_transcribed(record)}{task}"
    if record.system is None:
        return task
    system = record.system if len(record.system) <= _SHOWN else f"{record.system[:_SHOWN]}…"
    return task + tr(", system message {text}", text=json.dumps(visible(system), ensure_ascii=False))


def errors(number: int) -> str:
    """`1 error`, `2 errors`."""
    return count(number, "error").replace("\u00a0", " ")


def _transcribed(record: EvalResult | EvaluationRecord) -> str:
    pages = record.pages if isinstance(record.pages, int) else len(record.pages)
    some = record.transcribed and record.transcribed < pages
    return tr(", {number} of them with a transcript", number=f"{record.transcribed:,}") if some else ""


def without_folders(text: str) -> str:
    """`text` with every path in it cut to its last part: where something lies on this machine is nobody's business."""
    return _FOLDERS.sub("", _QUOTED.sub("", text))


def checkpoint_name(score: ModelScore | ServedSpeed) -> str:
    """The id of a model of the hub, or the name of a folder without where it lies."""
    if score.revision is None:
        return Path(score.model).name or Path(score.model).resolve().name
    return score.model if score.subfolder is None else f"{score.model}/{score.subfolder}"


def marked(text: str) -> str:
    """`text` of which something is to be seen even where it is white."""
    shown = text.replace("\n", "↵\n").replace("\t", "⇥")
    return shown if shown.strip(" ") else "␣" * len(shown)


def metric_title(name: str) -> str:
    """What a method's own measure of a layer is called: an error in calibration is none on the evaluation's pages."""
    known = {"output_error": phrase("calibration error"), "output_error_rtn": phrase("calibration error, RTN")}
    return tr(known.get(name, name.replace("_", " ")))
