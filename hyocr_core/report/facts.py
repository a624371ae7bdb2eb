"""Where the error is: layers and blocks of a quantized checkpoint, by an evaluation or by the method's own metrics."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.evaluation.recorded.evidence import Evidence

_BLOCK = re.compile(r"(?P<tower>.*?)\.?layers\.(?P<index>\d+)\.(?P<path>.+)")
METRICS = ("output_error", "weight_error")
"""Metrics of methods that say how far a layer is from what it was; the first that there is, is shown."""


@dataclass(frozen=True)
class LayerFacts:
    """What is known of one quantized linear. block: such as model.layers.3; kind: such as q_proj.

    error: what `errors_of` says. None and missing is what nobody measured.
    """

    name: str
    block: str
    kind: str
    shape: tuple[int, int]
    error: float | None
    weight_error: float | None
    bits: float | None
    weight_max: float | None
    input_max: float | None
    metrics: dict[str, float]
    degraded: str | None


def place_of(name: str) -> tuple[str, str]:
    """Block and kind of a linear: `model.layers.3.mlp.up_proj` gives `model.layers.3` and `up_proj`.

    A linear outside of the blocks is a block of its own.
    """
    match = _BLOCK.fullmatch(name)
    if match is None:
        return name, name.rpartition(".")[2]
    return name[: match.start("path") - 1], match["path"].rpartition(".")[2]


def layer_facts(evidence: Evidence) -> list[LayerFacts]:
    """The quantized linears, in model order."""
    measured = {} if evidence.evaluation is None else {layer.name: layer for layer in evidence.evaluation.layers}
    metric = None if measured else own_metric(evidence.report)
    facts = []
    for layer in evidence.report.layers:
        found = measured.get(layer.name)
        own = layer.metrics.get(metric) if metric is not None else None
        facts.append(
            LayerFacts(
                layer.name,
                *place_of(layer.name),
                layer.shape,
                error=own if found is None else found.output_error,
                weight_error=layer.metrics.get("weight_error") if found is None else found.weight_error,
                bits=None if found is None else found.bits,
                weight_max=None if found is None else found.weight_max,
                input_max=None if found is None else found.input_max,
                metrics=layer.metrics,
                degraded=layer.degraded,
            )
        )
    return facts


def own_metric(report: QuantReport) -> str | None:
    """The method's own measure of a layer's error, if it has one."""
    known = {name for layer in report.layers for name in layer.metrics}
    return next((name for name in METRICS if name in known), None)


@dataclass(frozen=True)
class BlockFacts:
    """How far one block is from the baseline's. worst: its linear of the largest error."""

    name: str
    error: float
    drift: float | None
    worst: LayerFacts | None


def block_facts(evidence: Evidence, layers: Iterable[LayerFacts]) -> list[BlockFacts]:
    """The blocks in model order: as an evaluation measured them, else the root mean square of their layers' errors."""
    inside: dict[str, list[LayerFacts]] = {}
    for layer in layers:
        if layer.error is not None:
            inside.setdefault(layer.block, []).append(layer)
    worst = {name: max(members, key=lambda layer: layer.error or 0.0) for name, members in inside.items()}
    if evidence.evaluation is not None and evidence.evaluation.blocks:
        measured = evidence.evaluation.blocks
        return [BlockFacts(block.name, block.error, block.drift, worst.get(block.name)) for block in measured]
    errors = {name: [layer.error or 0.0 for layer in members] for name, members in inside.items()}
    means = {name: (sum(error**2 for error in found) / len(found)) ** 0.5 for name, found in errors.items()}
    return [BlockFacts(name, mean, None, worst[name]) for name, mean in means.items()]
