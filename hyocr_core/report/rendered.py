"""Pages from templates: text that is foreign stays text, and a page needs nothing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

from markupsafe import Markup

from hyocr_core.evaluation.scores import numbers
from hyocr_core.pages.sources import source_name
from hyocr_core.report import text
from hyocr_core.shown import together, visible
from hyocr_core.wording import LANGUAGES, spoken, tr

TEMPLATES = Path(__file__).with_name("templates")
MARKS = tuple(
    f'<!doctype html>\n<html lang="{language}">\n<head>\n<meta charset="utf-8">\n'
    '<meta name="generator" content="hyocr">'.encode()
    for language in LANGUAGES
)
"""What every page begins with."""


def rendered(template: str, context: Mapping[str, Any]) -> str:
    """The text of a page, in the language that is spoken."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "percent": numbers.percent, "agreed": numbers.agreed, "points": numbers.points, "span": numbers.span,
        "signed_span": numbers.signed_span,
        "size": numbers.size, "number": numbers.number, "seconds": numbers.seconds,
        "without_folders": text.without_folders, "model_name": text.checkpoint_name, "marked": text.marked,
        "relative": numbers.relative, "times": numbers.times, "source_name": source_name, "told": text.told,
        "translated": tr, "errors": text.errors,
        "metric_title": text.metric_title, "measured": numbers.measured, "measured_span": numbers.measured_span,
        "measured_difference": numbers.measured_difference, "measured_signed_span": numbers.measured_signed_span,
        "apart": numbers.apart, "milliseconds": numbers.milliseconds, "middle": median, "together": together,
    }  # fmt: skip
    environment.globals |= {"tr": _said, "spoken": spoken()}
    return environment.get_template(template).render(context)


def _said(text: str, **values: Any) -> Markup:
    """`tr` for a template: markup of the template's own text stays, that of values does not."""
    said = Markup(tr(text))  # noqa: S704  (the catalogue is ours)
    return said.format(**{name: _visible(value) for name, value in values.items()}) if values else said


def _visible(value: Any) -> Any:
    """What is printed, with unseen characters written out. Markup stays as it is."""
    return visible(value) if type(value) is str else value
