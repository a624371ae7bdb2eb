"""Checks of what the tensors hold: scales, zero points, group indices, weights."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hyocr_core.kit.checks import is_finite
from hyocr_core.models.tied import equal_on_disk
from hyocr_core.progress import Progress
from hyocr_core.verification.faults import Fault
from hyocr_core.verification.subject import Linear, Subject

LARGEST_WEIGHT = 65504.0
"""The largest number of fp16, in which runtimes may compute. A flipped exponent is far beyond."""


def check_plain(subject: Subject, progress: Progress) -> Iterator[Fault]:
    """Carried tensors and plain weights are free of NaN and infinity."""
    plain = [linear.plain for linear in subject.linears.values() if linear.plain is not None]
    for name in (*subject.others.values(), *plain):
        if not is_finite(subject.reader.read([name])[name]):
            yield Fault(name, "holds NaN or infinite values")
        progress.step(name)
    for name in (linear.cache_scale for linear in subject.linears.values() if linear.cache_scale is not None):
        yield from _check_scale(name, subject.reader.read([name])[name])


def check_tied(subject: Subject) -> Iterator[Fault]:
    """A tensor that config.json ties to another, and which is there all the same, is a copy of it."""
    for memory, other in subject.model.ties.items():
        name, source = subject.others.get(memory), subject.others.get(other)
        if name is not None and source is not None and not equal_on_disk(subject.reader, name, source):
            yield Fault(name, f"differs from {source}, to which config.json ties it")


def check_packed(subject: Subject, progress: Progress, *, vouched: bool) -> Iterator[Fault]:
    """What the quantized linears hold makes sense.

    vouched: a report or the original says how large weights are, so that none is called too large.
    """
    for linear in subject.readable.values():
        tensors = subject.packed(linear)
        faults = [] if linear.format is None else list(_check_scales(linear, tensors))
        if not faults:
            faults = [*_check_values(linear, tensors), *_check_weight(subject, linear, tensors, vouched)]
        yield from faults
        progress.step(linear.name)


def check_shared_scales(subject: Subject) -> Iterator[Fault]:
    """Linears that runtimes fuse share the scales that each has one of; vLLM would take the largest for all."""
    readable = {linear.name for linear in subject.readable.values()}
    for group in subject.fused():
        members = [linear for linear in group if linear.name in readable]
        shared = {local: None for linear in members if linear.format is not None for local in linear.format.shared}
        for local in shared:
            names = [linear.packed[local] for linear in members if local in linear.packed]
            scales = subject.reader.read(names)
            if names and all(scale.numel() == 1 for scale in scales.values()):
                values = {name: scale.item() for name, scale in scales.items()}
                if len(set(values.values())) > 1:
                    shown = ", ".join(f"{name.rsplit('.', 2)[1]} {value:g}" for name, value in values.items())
                    yield Fault(names[0], f"differs within a group that runtimes fuse into one weight: {shown}")


def _check_scales(linear: Linear, tensors: Mapping[str, Tensor]) -> Iterator[Fault]:
    for local, tensor in tensors.items():
        if local.endswith(("scale", "scales")):
            yield from _check_scale(linear.packed[local], tensor)


def _check_values(linear: Linear, tensors: Mapping[str, Tensor]) -> Iterator[Fault]:
    if linear.format is not None:
        for local, problem in linear.format.value_problems(tensors, linear.shape):
            yield Fault(linear.packed[local], problem)


def _check_scale(name: str, scale: Tensor) -> Iterator[Fault]:
    bad = ~(torch.isfinite(scale) & (scale > 0))
    if bad.any():
        place = bad.nonzero()[0].tolist()
        value = scale[tuple(place)].item()
        more = f", and {int(bad.sum()) - 1} more" if bad.sum() > 1 else ""
        yield Fault(name, f"{place} is {value:g}{more}; a scale must be positive and finite")


def _check_weight(subject: Subject, linear: Linear, tensors: Mapping[str, Tensor], vouched: bool) -> Iterator[Fault]:
    weight = subject.dequantized(linear, tensors)
    if not is_finite(weight):
        yield Fault(linear.name, "holds NaN or infinite weights once dequantized")
    elif not vouched and (largest := weight.abs().max().item()) > LARGEST_WEIGHT:
        yield Fault(linear.name, f"its largest weight is {largest:.3g} once dequantized: no trained weight is so large")
