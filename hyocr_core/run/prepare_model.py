"""A method's look at the whole model before the first block: asked once, checked, and kept for resumed runs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import cached_property

import torch
from torch import Tensor

from hyocr_core.checkpoint.overlaid import OverlaidCheckpoint
from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.contract.types import Batches, Block, LayerSpec, Prepared
from hyocr_core.errors import ConfigError, MethodError
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.predicted import predict, predicted_change
from hyocr_core.models.wiring import Place
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source
from hyocr_core.run.job import Job
from hyocr_core.run.overrides import Overrides
from hyocr_core.run.run_record import PREPARED, PreparedRecord, RunJournal
from hyocr_core.run.trusted import check_same

PREPARED_CHANGE = 0.05
"""How much replaced tensors may change the logits of a sample, relative; rotations rounded to bf16 take a percent."""


class ModelView:
    """The model as a method's `prepare` sees it; see `types.Model`."""

    def __init__(self, job: Job) -> None:
        self._job = job

    @cached_property
    def layers(self) -> Mapping[str, LayerSpec]:
        """Every linear, the embedding and a head of its own, by on-disk name."""
        return self._job.model.layer_specs()

    @cached_property
    def tensors(self) -> Mapping[str, tuple[tuple[int, ...], torch.dtype]]:
        """On-disk name -> shape and dtype."""
        return {name: (tuple(info.shape), info.dtype) for name, info in self._job.reader.tensors.items()}

    def read(self, *names: str) -> dict[str, Tensor]:
        """Tensors by their on-disk names, as copies."""
        return self._job.reader.read(names)

    def blocks(self) -> Iterator[AbstractContextManager[Block]]:
        """The decoder's blocks in order, each in memory inside `with` only."""
        for index, place in enumerate(self._job.model.decoder_blocks):
            yield self._opened(place, index)

    @contextmanager
    def _opened(self, place: Place, index: int) -> Iterator[Block]:
        job = self._job
        with job.model.block(place, index, job.model.linears) as block:
            configs = {name: job.main.options.get(name, job.main.config) for name in block.layers}
            yield replace(block, configs=configs)


def prepare_model(job: Job, stage: StagedCheckpoint, journal: RunJournal, embed: Callable[[], Batches]) -> None:
    """Let the method decide on the whole model, unless it has; put what it decided into `job`.

    embed: brings the samples to the input of the decoder. Raises MethodError when replaced tensors change what the
    model predicts.
    """
    if not job.main.method.implements("prepare"):
        return
    prepared = journal.record.prepared
    lost = prepared is not None and bool(prepared.tensors) and not stage.part_path(PREPARED).is_file()
    if lost:
        # The method is to see what it saw before, and not what came of its own tensors.
        job.ranks.told(lambda: _forget_samples(stage, journal))
        if not job.ranks.first:
            _forget_embedded(journal)
    if prepared is None or lost:
        with job.watch.phase("prepare"):
            prepared = _decided(job, stage, journal, embed)
    else:
        _set_options(job, prepared.overrides)
    if prepared.tensors:
        job.model = _with(job, stage.read_part(PREPARED))
    job.prepared = prepared.tensors
    job.config_changes = prepared.config
    for name in job.copies.keys() - job.kept if job.run.keep_head else ():
        job.progress.say(f"{name} is left out after all: the method replaced {job.copies[name]}, which it is a copy of")


def _decided(job: Job, stage: StagedCheckpoint, journal: RunJournal, embed: Callable[[], Batches]) -> PreparedRecord:
    """What the method decides, in the first process alone, which has all samples for it."""
    batches = embed() if job.records else ()
    if job.ranks.size == 1:
        return _ask(job, stage, journal, batches)
    prepared = PreparedRecord.model_validate(
        job.ranks.told(lambda: _ask(job, stage, journal, batches).model_dump(mode="json"))
    )
    if not job.ranks.first:
        _set_options(job, prepared.overrides)
        if prepared.tensors or job.quantizes_vision:
            _forget_embedded(journal)
        journal.record.prepared = prepared
    return prepared


def _ask(job: Job, stage: StagedCheckpoint, journal: RunJournal, batches: Batches) -> PreparedRecord:
    job.progress.start("prepare", 1)
    found = job.main.method.prepare(ModelView(job), batches, job.main.config, job.run.seed)
    _set_options(job, found.overrides)
    sha256 = None
    if found.tensors:
        _check_output(job, found)
        sha256 = stage.add_part(PREPARED, found.tensors)
    if journal.record.prepared is not None:
        check_same(stage.part_path(PREPARED), journal.record.prepared.sha256, sha256)
    if found.tensors or job.quantizes_vision:
        _forget_samples(stage, journal)
    prepared = PreparedRecord(
        overrides={pattern: dict(options) for pattern, options in found.overrides.items()},
        tensors=tuple(found.tensors),
        config=dict(found.config),
        sha256=sha256,
    )
    journal.record.prepared = prepared
    journal.save()
    job.progress.step()
    return prepared


def _set_options(job: Job, prepared: Overrides) -> None:
    """Let options of layers hold that the method chose, after those that the user did."""
    given = job.run.overrides
    try:
        job.set_options({**given, **{pattern: own for pattern, own in prepared.items() if pattern not in given}})
    except ConfigError as error:
        raise MethodError(f"{job.main.method.entry.at('prepare')}: {error}") from error


def _with(job: Job, tensors: Mapping[str, Tensor]) -> HunYuanVL:
    """The model with these tensors in the place of its own."""
    return HunYuanVL(OverlaidCheckpoint(job.reader, tensors), job.model.device, job.model.forward)


def _forget_samples(stage: StagedCheckpoint, journal: RunJournal) -> None:
    """Samples that were embedded with tensors which are about to change have to be embedded again."""
    _forget_embedded(journal)
    shutil.rmtree(stage.folder / "inputs", ignore_errors=True)


def _forget_embedded(journal: RunJournal) -> None:
    journal.record.inputs.clear()
    journal.record.embedded = None
    journal.save()


def _check_output(job: Job, found: Prepared) -> None:
    """Hold what the model predicts of one sample with the tensors replaced against what it predicted before."""
    processor = job.processor or load_processor(job.source.folder)
    [record, *_] = job.records or open_source("synthetic:1")
    inputs = build_sample(record, processor, with_answer=True).inputs
    replaced = _with(job, found.tensors)
    change = predicted_change(predict(job.model, inputs), predict(replaced, inputs))
    # Written so that NaN is refused too.
    if not change <= PREPARED_CHANGE:
        raise MethodError(
            f"{job.main.method.entry.at('prepare')}: the tensors that it replaced change the model's predictions by "
            f"{change:.1%} on {record.name}; it must compute the same"
        )
