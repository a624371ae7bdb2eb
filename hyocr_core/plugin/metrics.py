"""Find, import and validate metrics: entry points of the group `hyocr.metrics`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from hyocr_core.contract.metric import ENTRY_POINT_GROUP, Metric, MetricConfig
from hyocr_core.errors import BadInputError, MetricError
from hyocr_core.plugin import entry_points
from hyocr_core.plugin.classes import Loaded, load_class, refusal
from hyocr_core.plugin.entry_points import PluginEntry

RESERVED = ("agreement", "kl", "cut", "identical")
"""Figures that no text and reference give: a gate bounds them, and no metric may have their names."""

_CHOICES = {"better": ("smaller", "larger"), "together": ("mean", "sum"), "compares": ("transcript", "checks")}


@dataclass(frozen=True)
class MetricEntry(PluginEntry):
    """One entry point of the group `hyocr.metrics`."""

    kind: ClassVar[str] = "metric"
    group: ClassVar[str] = ENTRY_POINT_GROUP
    option: ClassVar[str] = "--metrics"
    error: ClassVar[type[BadInputError]] = MetricError


LoadedMetric: TypeAlias = Loaded[MetricEntry, Metric]
"""A metric that keeps the contract, not yet started."""


def installed_metrics() -> list[MetricEntry]:
    """List the metrics of all installed distributions, by name; imports none of them."""
    return entry_points.installed(MetricEntry)


def load_metric(selector: str) -> LoadedMetric:
    """Import the one metric that `selector`, `name` or `distribution:name`, picks and validate it.

    Raises MetricError: unknown, offered twice, fails to import, other API version, or the contract is not kept.
    """
    loaded = load_class(MetricEntry, selector, Metric, "Metric", MetricConfig)
    try:
        _check(loaded)
    except MetricError as error:
        raise refusal(loaded.entry, error) from None
    return loaded


def _check(loaded: LoadedMetric) -> None:
    metric = loaded.cls
    if loaded.entry.name in RESERVED:
        raise MetricError(f"{', '.join(RESERVED)} are figures of hyocr's own; give it another name")
    title = getattr(metric, "title", "")
    if not (_is_one_line(title) and title.strip()):
        raise MetricError(f"its class {metric.__name__} has no title of one line; write such as title = 'chrF'")
    if not _is_one_line(metric.unit):
        raise MetricError(f"unit of its class {metric.__name__} must be a text of one line, such as '%'")
    if not (isinstance(metric.tasks, tuple) and all(map(_is_one_line, metric.tasks))):
        raise MetricError(f"tasks of its class {metric.__name__} must be a tuple of names, such as ('table',)")
    for key, choices in _CHOICES.items():
        if getattr(metric, key) not in choices:
            raise MetricError(f"{key} of its class {metric.__name__} must be {' or '.join(choices)}")


def _is_one_line(text: object) -> bool:
    return isinstance(text, str) and text.isprintable()
