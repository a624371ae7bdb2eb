"""Which metrics an evaluation measures: those that the user names or bounds, and those that follow from its task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from hyocr_core.checkpoint.quant_report import MetricRecord
from hyocr_core.contract.metric import Metric
from hyocr_core.errors import MetricError, one_line
from hyocr_core.evaluation.scores.error_rates import BUILT_IN
from hyocr_core.pages.prompts import task_name
from hyocr_core.plugin.metrics import LoadedMetric, MetricEntry, installed_metrics, load_metric
from hyocr_core.settings.eval_config import EvalConfig

OWN = "hyocr-core"


@dataclass(frozen=True)
class ChosenMetric:
    """A metric beside those of every evaluation, started. named: by the user; others follow from the task."""

    entry: MetricEntry
    metric: Metric
    named: bool = True

    @property
    def record(self) -> MetricRecord:
        """What a result says of it."""
        return MetricRecord(
            title=self.metric.title,
            unit=self.metric.unit,
            better=self.metric.better,
            distribution=self.entry.distribution,
            version=self.entry.version,
        )


def choose_metrics(config: EvalConfig) -> dict[str, ChosenMetric]:
    """Start the metrics beside those of every evaluation, by what the user calls them: those that the evaluation names
    or bounds, then those that follow from its task.

    Raises MetricError or ConfigError for one that is unknown, broken, has wrong options or is of other tasks.
    """
    task = None if config.task is None else task_name(config.task)
    named = dict(config.metrics) | {name: {} for name in bounded(config) if name not in config.metrics}
    chosen = {}
    for name, options in named.items():
        loaded = load_metric(name)
        settings = loaded.config(options)
        if loaded.entry.distribution == OWN and loaded.entry.name in BUILT_IN:
            continue
        _refuse_other_task(loaded, task)
        chosen[name] = ChosenMetric(loaded.entry, _started(loaded, settings))
    taken = {each.entry.selector for each in chosen.values()}
    for loaded in _of_task(task):
        if loaded.entry.selector not in taken and not lacking(loaded):
            metric = _started(loaded, loaded.config({}))
            chosen[loaded.entry.name] = ChosenMetric(loaded.entry, metric, named=False)
    return chosen


def not_measured(config: EvalConfig) -> Iterator[str]:
    """A line for all metrics that follow from the task and cannot start here for one reason, with that."""
    names: dict[str, list[str]] = {}
    for loaded in _of_task(None if config.task is None else task_name(config.task)):
        if reason := lacking(loaded):
            names.setdefault(reason, []).append(loaded.entry.name)
    yield from (f"not measured: {', '.join(alike)}, which {reason}" for reason, alike in names.items())


def lacking(loaded: LoadedMetric) -> str:
    """What a metric of hyocr's own needs and is not installed; empty if nothing."""
    try:
        loaded.cls(loaded.config({}))
    except MetricError as error:
        return str(error)
    return ""


def _of_task(task: str | None) -> list[LoadedMetric]:
    """Those of hyocr's own that measure a part of the answers to a task."""
    own = (load_metric(entry.selector) for entry in installed_metrics() if entry.distribution == OWN)
    return [] if task is None else [loaded for loaded in own if task in loaded.cls.tasks]


def _refuse_other_task(loaded: LoadedMetric, task: str | None) -> None:
    tasks = loaded.cls.tasks
    if task is None or not tasks or task in tasks:
        return
    fitting = ", ".join(each.entry.name for each in _of_task(task)) or "none"
    raise MetricError(
        f"{loaded.entry}: does not apply to the task {task}, but to {', '.join(tasks)}; leave it out, or the task; "
        f"metrics by part for {task}: {fitting}"
    )


def _started(loaded: LoadedMetric, settings: Any) -> Metric:
    try:
        return loaded.cls(settings)
    except MetricError as error:
        raise MetricError(f"{loaded.entry}: {error}") from error
    except (Exception, SystemExit) as error:
        raise MetricError(f"{loaded.entry}: cannot start: {one_line(error, named=True)}") from error


def bounded(config: EvalConfig) -> list[str]:
    """The metrics that the gate bounds."""
    return [] if config.gate is None else config.gate.metrics


def needs_transcripts(config: EvalConfig) -> bool:
    """Whether a metric that the user named has no number for pages without a transcript."""
    named = (load_metric(name).cls for name in (*config.metrics, *bounded(config)))
    return any(metric.needs_reference and metric.compares == "transcript" for metric in named)
