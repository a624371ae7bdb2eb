"""Scales that a method like AWQ moved from layers into what feeds them: where in a checkpoint, and how large."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from hyocr_core.contract.types import Smoothing
from hyocr_core.models.folded import Folds
from hyocr_core.models.folded import find_folds as find_folds_between
from hyocr_core.models.spelling import memory_name
from hyocr_core.models.wiring import smoothing_of
from hyocr_core.verification.basis import Basis
from hyocr_core.verification.original import Original
from hyocr_core.verification.subject import Subject


def links(subject: Subject) -> Iterator[Smoothing]:
    """Where scales can have moved, in order of execution; names are published ones."""
    for place in (*subject.model.vision_blocks, *subject.model.decoder_blocks):
        names = {
            path.removesuffix(".weight"): name.removesuffix(".weight")
            for path, name in subject.model.parameter_names(place).items()
        }
        block = subject.model.skeleton.get_submodule(place.path)
        yield from smoothing_of(block, place.wiring, names, set(subject.quantized))


def source_parameters(subject: Subject) -> set[str]:
    """In-memory names of the carried parameters that a moved scale changes."""
    return {memory_name(f"{link.name}.{part}") for link in links(subject) for part in ("weight", "bias")}


def find_folds(subject: Subject, original: Original, basis: Basis, rescaled: set[str]) -> Folds:
    """Find the scales that moved. rescaled: in-memory names of the carried parameters that were changed by them."""

    def before(name: str) -> Tensor | None:
        if name in subject.linears:
            return original.weight(subject.linears[name])
        memory = memory_name(f"{name}.weight")
        return original.read(memory) if memory in rescaled else None

    def now(name: str) -> Tensor | None:
        if name in subject.linears:
            readable = subject.readable.get(name)
            return None if readable is None else basis.turned_back(readable.name, subject.weight(readable))
        stored = subject.others[memory_name(f"{name}.weight")]
        return subject.reader.read([stored])[stored]

    return find_folds_between(links(subject), before, now)
