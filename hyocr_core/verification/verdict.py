"""What a verification says, for programs and as tables for people."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field
from rich.table import Table

from hyocr_core.contract.backend import Forward
from hyocr_core.contract.config import FrozenModel
from hyocr_core.runtimes.whose_forward import other_forward


class FaultRecord(FrozenModel):
    place: str = Field(description="file, tensor or layer")
    problem: str


class RuntimeRecord(FrozenModel):
    name: str
    loads: Literal["yes", "no", "unsure"]
    why: str


class LayerMatch(FrozenModel):
    name: str
    shape: tuple[int, int]
    sqnr_db: float | None = Field(description="signal-to-quantization-noise ratio; null when nothing was lost")
    least_db: float = Field(description="what the format promises at least")


class TogetherRecord(FrozenModel):
    """What a runtime made of several pages at once that it had read one by one."""

    versions: str = Field(description="of the runtime and of what it computes with")
    changed: int = Field(description="pages that it read otherwise")
    finding: str = Field(description="the same in words, and what to do")


class LoadRecord(FrozenModel):
    """What a runtime made of the checkpoint. text: what it read, of a page that says `page`."""

    runtime: str
    outcome: Literal["read", "failed", "cannot be tried here"]
    detail: str = Field(description="why it failed or cannot be tried")
    page: str
    text: str
    forward: Forward | None = Field(None, description="whose forward it computes; None where that is not known")
    together: TogetherRecord | None = Field(None, description="of a runtime that reads several pages at once")


class VerifyResult(FrozenModel):
    """The whole verification; a checkpoint without faults is sound."""

    schema_version: int = 1
    hyocr: str
    folder: str
    quant_method: str
    quantized: int = Field(description="linears that are quantized")
    plain: int = Field(description="linears that are not")
    faults: tuple[FaultRecord, ...]
    notes: tuple[str, ...] = Field(description="what could not be checked, and why")
    runtimes: tuple[RuntimeRecord, ...] = Field(description="which runtimes are known to load such a checkpoint")
    layers: tuple[LayerMatch, ...] = Field(description="with --original: every quantized linear beside it")
    load: LoadRecord | None


WORST = 5
"""Layers that are shown unless all are asked for."""


def worst_layers(result: VerifyResult) -> tuple[LayerMatch, ...]:
    """Those that are closest to the least that their format promises, or below it."""
    measured = [(layer.sqnr_db - layer.least_db, layer) for layer in result.layers if layer.sqnr_db is not None]
    return tuple(layer for _, layer in sorted(measured, key=lambda pair: pair[0])[:WORST])


def layer_table(layers: Sequence[LayerMatch]) -> Table:
    """One row per layer; what is too far from the original in red."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("layer", no_wrap=True)
    for title in ("SQNR dB", "at least", "shape"):
        table.add_column(title, justify="right", no_wrap=True)
    for layer in layers:
        ratio, shape = layer.sqnr_db, f"{layer.shape[0]}x{layer.shape[1]}"
        style = "red" if ratio is not None and ratio < layer.least_db else None
        found = "exact" if ratio is None else f"{ratio:.1f}"
        table.add_row(layer.name, found, f"{layer.least_db:g}", shape, style=style)
    return table


def runtime_table(runtimes: Sequence[RuntimeRecord]) -> Table:
    """One row per runtime."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("runtime", no_wrap=True)
    table.add_column("loads")
    table.add_column("why")
    for runtime in runtimes:
        table.add_row(runtime.name, runtime.loads, runtime.why)
    return table


def lines(result: VerifyResult) -> Iterator[str]:
    """The rest, as lines: what was looked at, how many faults it has, notes, what a runtime read, and every fault."""
    yield f"{result.quant_method}: {result.quantized} linears quantized, {result.plain} left as they are"
    count = len(result.faults)
    yield "no faults" if not count else "1 fault" if count == 1 else f"{count} faults"
    for note in result.notes:
        yield f"note: {note}"
    if result.load is not None and result.load.outcome == "read":
        yield f"{result.load.runtime} read {result.load.text!r} on a page that says {result.load.page!r}"
        yield from _forward_line(result.load)
        together = result.load.together
        if together is not None and not together.changed:
            yield f"{together.versions}: {together.finding}"
    for fault in result.faults:
        yield f"fault: {fault.place}: {fault.problem}"


def _forward_line(load: LoadRecord) -> Iterator[str]:
    if load.forward is None:
        yield f"note: whose forward {load.runtime} computes is not known"
    elif load.forward == "reference":
        yield f"{load.runtime} computes the reference's forward"
    else:
        yield f"note: {other_forward(load.runtime, load.forward, is_vllm=load.runtime == 'vllm')}"
