"""Static scales of inputs and of the cache, against what the original's modules really see on drawn pages.

Nothing in the weights tells such a scale: a wrong one cuts every input off or rounds it to zero, and all other checks
pass. One forward of the original says in which range the values lie.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyocr_core.errors import CheckpointError
from hyocr_core.formats import ScaledFormat
from hyocr_core.kit.e4m3 import LARGEST
from hyocr_core.models.folded import Folds
from hyocr_core.models.load import load_model
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.runtimes.concurrency import trial_pages
from hyocr_core.verification.faults import Fault, Findings
from hyocr_core.verification.subject import Subject

PAGES = 2
BULK = 0.99
LEAST = 1 / 3
"""A range must reach this share of what BULK of the values do not exceed. Those of every observer of `fp8` reached 1.2
times it, on two models."""
MOST = 30.0
"""A range may be so many times the largest value seen. Those of `fp8` were 2.6 times it at most, but of a larger model
the rare outliers may be on other pages."""


@dataclass
class Ranged:
    """A static scale. name: its tensor. module: whose inputs it scales, or outputs, by in-memory name.

    reach: the largest value that it can stand for. folded: what the module sees of an original's values.
    bulk, largest: absolute values that passed by: what BULK of them do not exceed, and the largest.
    """

    name: str
    module: str
    of_outputs: bool
    reach: float
    folded: Callable[[Tensor], Tensor] = field(default=lambda values: values)
    bulk: float = 0.0
    largest: float = 0.0

    def add(self, values: Tensor) -> None:
        sizes = self.folded(values.detach().float()).abs().flatten()
        self.bulk = max(self.bulk, sizes.kthvalue(max(1, int(BULK * len(sizes)))).values.item())
        self.largest = max(self.largest, sizes.max().item())

    def faults(self) -> Iterator[Fault]:
        """Whether the values fit into the range; a module that no page reaches tells nothing."""
        if self.largest > 0 and not LEAST * self.bulk <= self.reach <= MOST * self.largest:
            what = "outputs" if self.of_outputs else "inputs"
            yield Fault(
                self.name,
                f"reaches to {self.reach:.3g}, but {BULK:.0%} of the {what} that the original sees on drawn pages are "
                f"up to {self.bulk:.3g}, the largest is {self.largest:.3g}",
            )


def check_ranges(subject: Subject, original: Path, folds: Folds, findings: Findings) -> None:
    """Find every static scale that cannot be that of what it scales, as far as the original can be run."""
    scales = [*_of_inputs(subject, folds), *_of_the_cache(subject)]
    if not scales:
        return
    try:
        _see(original, scales)
    except CheckpointError as error:
        findings.notes.append(f"static scales were not held against the original, which cannot be run: {error}")
        return
    for scale in scales:
        findings.faults += scale.faults()


def _of_inputs(subject: Subject, folds: Folds) -> Iterator[Ranged]:
    for published, linear in subject.readable.items():
        name = linear.packed.get("input_scale")
        if name is not None and isinstance(linear.format, ScaledFormat):
            reach = _value(subject, name) * linear.format.largest_code
            yield Ranged(name, linear.memory, False, reach, partial(folds.inputs, published))


def _of_the_cache(subject: Subject) -> Iterator[Ranged]:
    for linear, module in subject.cached():
        if linear.cache_scale is not None and subject.reader.tensors[linear.cache_scale].shape in ((), (1,)):
            yield Ranged(linear.cache_scale, module, True, _value(subject, linear.cache_scale) * LARGEST)


def _value(subject: Subject, name: str) -> float:
    return float(subject.reader.read([name])[name])


@torch.inference_mode()
def _see(original: Path, scales: list[Ranged]) -> None:
    """Let the original read, and note what its modules see."""
    processor = load_processor(original)
    model = load_model(original, torch.device("cpu"))
    for scale in scales:
        module = model.get_submodule(scale.module)
        if scale.of_outputs:
            module.register_forward_hook(_watch_outputs(scale))
        else:
            module.register_forward_pre_hook(_watch_inputs(scale))
    for page in trial_pages()[:PAGES]:
        model(**build_sample(page, processor, with_answer=True).inputs)


def _watch_inputs(scale: Ranged) -> Callable[[Any, tuple[Tensor, ...]], None]:
    return lambda _module, args: scale.add(args[0])


def _watch_outputs(scale: Ranged) -> Callable[[Any, Any, Tensor], None]:
    return lambda _module, _args, output: scale.add(output)
