"""Where a model departs from its baseline: block by block and linear by linear, with both in memory, on a few pages.

Of each page only the hidden states between two blocks are kept.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from hyocr_core.contract.types import Batch, Smoothing
from hyocr_core.evaluation.reading.generate import Prompts, Runner
from hyocr_core.evaluation.scores.result import BlockError, Diagnosis, LayerError
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.folded import Folds, find_folds
from hyocr_core.models.hunyuan_vl import HunYuanVL, ModelInputs
from hyocr_core.models.wiring import Place, smoothing_of

TOKENS = 2048
"""Prompt and answer tokens looked at; one page at least."""


@dataclass(frozen=True)
class Side:
    """A whole model in memory, and what it sees of the pages."""

    model: HunYuanVL
    runner: Runner
    prompts: Prompts


@dataclass
class _Norms:
    """Squared norms, summed over pages, of a difference and of what it is relative to."""

    difference: float = 0.0
    reference: float = 0.0

    def add(self, difference: Tensor, reference: Tensor) -> None:
        self.difference += _energy(difference)
        self.reference += _energy(reference)

    @property
    def ratio(self) -> float:
        return math.sqrt(self.difference / self.reference) if self.reference else float(self.difference > 0)


@dataclass
class _Linear:
    """A quantized linear beside the baseline's.

    path: in memory. found: the quantized one. folds: what was moved into and out of it is taken out again.
    """

    path: str
    found: nn.Module
    folds: Folds
    outputs: _Norms = field(default_factory=_Norms)
    input_max: float = 0.0

    def watch(self, _module: nn.Module, args: tuple[Tensor], output: Tensor) -> None:
        """Give the model's linear the input that the baseline's got."""
        inputs = args[0]
        found = self.folds.outputs(self.path, self.found(self.folds.inputs(self.path, inputs)))
        self.outputs.add(found.float() - output.float(), output)
        self.input_max = max(self.input_max, float(inputs.abs().max()))

    def error(self, name: str, bits: float, expected: Tensor, found: Tensor) -> LayerError:
        """What is known in the end. name: on disk. expected, found: the weights (N, K)."""
        weights = _Norms()
        weights.add(self.folds.undo(self.path, found.float()) - expected.float(), expected)
        outputs, inputs = expected.shape
        return LayerError(
            name=name,
            shape=(outputs, inputs),
            bits=bits,
            weight_error=weights.ratio,
            output_error=self.outputs.ratio,
            weight_max=float(expected.abs().max()),
            input_max=self.input_max,
        )


_Pair: TypeAlias = tuple[Batch, Batch]
"""A page at the input of a block: on the baseline's way through the model, and on the model's own."""


@torch.inference_mode()
def diagnose(baseline: Side, model: Side, inputs: Sequence[ModelInputs], answers: Sequence[Sequence[int]]) -> Diagnosis:
    """Compare both models on the first of these pages along the baseline's answers, at most TOKENS tokens of them.

    inputs, answers: of the pages that the prompts of both sides hold. The vision tower is compared when the model
    quantizes some of it. Empty for models of different shapes.
    """
    if baseline.model.parameters != model.model.parameters:
        return Diagnosis()
    pages = _first_pages(baseline.prompts.token_ids.shape[1], answers)
    comparison = _Comparison(baseline.model, model.model)
    vision = model.model.vision_blocks
    if any(comparison.quantized(place) for place in vision):
        comparison.walk(vision, [_patches(baseline.model, model.model, inputs[page]) for page in pages])
    comparison.walk(model.model.decoder_blocks, [_tokens(baseline, model, page, answers[page]) for page in pages])
    return Diagnosis(blocks=tuple(comparison.blocks), layers=tuple(comparison.layers))


def _first_pages(prompt: int, answers: Sequence[Sequence[int]]) -> range:
    """As many pages as have TOKENS tokens together, one at least."""
    total = count = 0
    for answer in answers:
        total += prompt + len(answer)
        if total > TOKENS and count:
            break
        count += 1
    return range(count)


def _patches(baseline: HunYuanVL, model: HunYuanVL, inputs: ModelInputs) -> _Pair:
    left, right = (each.vision_batch("", each.embed_patches(inputs)) for each in (baseline, model))
    return left, right


def _tokens(baseline: Side, model: Side, page: int, answer: Sequence[int]) -> _Pair:
    left, right = (
        side.model.batch("", side.runner.forced(side.prompts.page(page), [answer])) for side in (baseline, model)
    )
    return left, right


class _Comparison:
    """Two models of the same shapes, and what was found so far."""

    def __init__(self, baseline: HunYuanVL, model: HunYuanVL) -> None:
        self._baseline = baseline
        self._model = model
        weights = model.reader
        self._bits = {}
        if isinstance(weights, DequantizedCheckpoint):
            self._bits = {model.memory_names[name]: weights.bits(name) for name in weights.shapes}
        self._folds = self._find_folds()
        self.blocks: list[BlockError] = []
        self.layers: list[LayerError] = []

    def quantized(self, place: Place) -> list[str]:
        """In-memory names of a block's quantized linears, in order of execution."""
        paths = (f"{place.path}.{path}" for group in place.wiring.groups for path in group)
        return [path for path in paths if path in self._bits]

    def walk(self, places: Iterable[Place], pages: list[_Pair]) -> None:
        """Compare consecutive blocks on these pages, given at the input of the first."""
        for place in places:
            linears = [
                _Linear(path, self._model.skeleton.get_submodule(path), self._folds) for path in self.quantized(place)
            ]
            error, drift = _Norms(), _Norms()
            for index, (left, right) in enumerate(pages):
                with self._watched(linears):
                    expected = self._run(self._baseline, place, left)
                found, own = (self._run(self._model, place, batch) for batch in (left, right))
                before = left.hidden_states
                added = expected - before if expected.shape == before.shape else expected
                error.add(found.float() - expected.float(), added)
                drift.add(own.float() - expected.float(), expected)
                pages[index] = (replace(left, hidden_states=expected), replace(right, hidden_states=own))
            name = self._baseline.block_name(place)
            self.blocks.append(BlockError(name=name, error=error.ratio, drift=drift.ratio))
            self.layers += [self._error(linear) for linear in linears]

    def _run(self, model: HunYuanVL, place: Place, batch: Batch) -> Tensor:
        return place.wiring.run(model.skeleton.get_submodule(place.path), batch)

    @contextmanager
    def _watched(self, linears: Sequence[_Linear]) -> Iterator[None]:
        modules = [self._baseline.skeleton.get_submodule(linear.path) for linear in linears]
        handles = [module.register_forward_hook(linear.watch) for module, linear in zip(modules, linears, strict=True)]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _error(self, linear: _Linear) -> LayerError:
        path = linear.path
        expected, found = (_weight(each, path) for each in (self._baseline, self._model))
        return linear.error(self._baseline.disk_module(path), self._bits[path], expected, found)

    def _find_folds(self) -> Folds:
        """The scales that the model's method moved."""
        places = (*self._model.vision_blocks, *self._model.decoder_blocks)
        links = (link for place in places for link in self._links(place))
        return find_folds(links, partial(_weight, self._baseline), partial(_weight, self._model))

    def _links(self, place: Place) -> Iterator[Smoothing]:
        paths = {path for group in place.wiring.groups for path in group}
        names = {path: f"{place.path}.{path}" for path in paths.union(link.source for link in place.wiring.links)}
        block = self._model.skeleton.get_submodule(place.path)
        return smoothing_of(block, place.wiring, names, set(self._bits))


def _weight(model: HunYuanVL, path: str) -> Tensor:
    """The weight of a module by its name in memory, where a runtime may hold it packed."""
    name = f"{model.disk_module(path)}.weight"
    return model.reader.read([name])[name].to(model.device)


def _energy(values: Tensor) -> float:
    return float(values.float().square().sum())
