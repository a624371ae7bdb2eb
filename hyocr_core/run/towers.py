"""The samples on their way to the decoder: through the vision tower, quantized or not, and the token embedding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.contract.types import Batch, Batches
from hyocr_core.models.hunyuan_vl import Embedded, ModelInputs
from hyocr_core.run.activations import ActivationCache
from hyocr_core.run.blocks import quantize_blocks
from hyocr_core.run.embedding import EmbeddedSamples, Embedding, embed_samples
from hyocr_core.run.job import Job
from hyocr_core.run.run_record import RunJournal
from hyocr_core.run.streams import BlockBatches, Streams
from hyocr_core.run.token_weights import balanced_weights
from hyocr_core.run.workload import Size, forward_work

if TYPE_CHECKING:
    from torch import Tensor

QUANTIZED, REFERENCE = "quantized", "reference"
"""Names of the two streams, as their files have them."""

ATTENTION_COST = 4
"""Of an operation of the attention, in operations of a linear, whose matrices are larger."""


@dataclass(frozen=True)
class Vision:
    """What a quantized vision tower makes of the images of this process's samples.

    records: numbers of those that it brings to the decoder.
    """

    streams: Streams
    records: list[int]


@dataclass(frozen=True)
class Towers:
    """One run on its way to the decoder's first block."""

    job: Job
    stage: StagedCheckpoint
    journal: RunJournal

    def full_precision_batches(self) -> Batches:
        """The samples at the input of the decoder, none of it quantized yet; all of them on the first process only."""
        samples = self._embed("inputs", None, None)
        mine = samples if self.job.ranks.first else samples.chosen([])
        return BlockBatches(Streams(self._cache(mine, self.job.model.batch)), self.job.progress.detail)

    def quantize_vision(self) -> Vision | None:
        """Quantize the vision tower; return what it makes of the samples' images, None when nothing needs that."""
        job, places = self.job, self.job.model.vision_blocks
        if not job.records or self.journal.record.embedded is not None:
            quantize_blocks(job, self.stage, self.journal, places, None)
            return None

        def patches(_number: int, inputs: ModelInputs) -> Embedded:
            return job.model.embed_patches(inputs)

        how = Embedding("patches", self.stage.folder / "patches", patches)
        with job.watch.phase("vision"), job.model.patch_embedding():
            samples = self._embed_samples(how, None)
        mine = samples.chosen(job.ranks.share([_work(job, Size(0, count)) for count in samples.patches]))
        streams = (QUANTIZED, REFERENCE) if self._vision_follows else (QUANTIZED,)
        features = Streams(*(self._cache(mine, job.model.vision_batch, stream=stream) for stream in streams))
        quantize_blocks(job, self.stage, self.journal, places, features, through_last=True)
        return Vision(features, [*mine.numbers, *self._unusable(samples)])

    def decoder_streams(self, vision: Vision | None) -> tuple[EmbeddedSamples, Callable[[], Streams]]:
        """Bring every sample to the input of the decoder; return the samples and what loads this process's streams.

        vision: of a quantized vision tower.
        """
        mine = None if vision is None else vision.records
        samples = self._embed("inputs", None if vision is None else vision.streams.quantized, mine)
        folders = {QUANTIZED: samples.folder}
        if self.job.follows_reference:
            # Where no method takes both paths through the vision tower, they begin at the decoder, and alike.
            reference = None if vision is None else vision.streams.reference
            apart = self._vision_follows
            folders[REFERENCE] = self._embed(REFERENCE, reference, mine).folder if apart else samples.folder
        if self.journal.record.embedded is None:
            self.journal.record.embedded = len(samples.names)
            self.journal.save()
        job = self.job
        weights = balanced_weights(samples.kinds) if job.balances_tokens else None
        places = job.ranks.share([_work(job, Size(len(kinds), 0)) for kinds in samples.kinds])
        own = None if weights is None else [weights[place] for place in places]

        def load() -> Streams:
            chosen = samples.chosen(places)
            caches = [
                self._cache(replace(chosen, folder=folder), job.model.batch, stream=stream, weights=own)
                for stream, folder in folders.items()
            ]
            return Streams(*caches)

        return samples, load

    def _cache(
        self,
        samples: EmbeddedSamples,
        to_batch: Callable[[str, Embedded], Batch],
        *,
        stream: str = QUANTIZED,
        weights: Sequence[Tensor] | None = None,
    ) -> ActivationCache:
        return ActivationCache(
            samples.folder,
            samples.names,
            to_batch,
            spill=self.job.run.spill,
            weights=weights,
            stream=stream,
            device=self.job.model.device,
            numbers=samples.numbers,
        )

    def _unusable(self, samples: EmbeddedSamples) -> list[int]:
        """Numbers of the records that are not among the samples; the first process says so once more."""
        if not self.job.ranks.first:
            return []
        return sorted(set(range(len(self.job.records))) - set(samples.numbers))

    @property
    def _vision_follows(self) -> bool:
        """Whether a method that asks for the full-precision path quantizes linears of the vision tower."""
        vision = self.job.vision_linears
        return any(share.follows_reference(vision & share.options.keys()) for share in self.job.shares)

    def _embed(self, folder: str, vision: ActivationCache | None, mine: Sequence[int] | None) -> EmbeddedSamples:
        """Bring every sample to the input of the decoder.

        vision: the features of a quantized vision tower, of the records that are this process's: mine.
        """
        model = self.job.model
        places = {} if vision is None else {number: place for place, number in enumerate(vision.numbers)}

        def embed(number: int, inputs: ModelInputs) -> Embedded:
            features = None if vision is None else vision.get(places[number]).hidden_states[0].to(model.device)
            return model.embed(inputs, features)

        how = Embedding("vision", self.stage.folder / folder, embed)
        with self.job.watch.phase("vision"), model.front(vision=vision is None):
            return self._embed_samples(how, mine)

    def _embed_samples(self, how: Embedding, mine: Sequence[int] | None) -> EmbeddedSamples:
        job, most = self.job, self.job.model.max_tokens
        return embed_samples(how, job.records, job.processor, most, self.journal, job.progress, job.ranks, mine)


def _work(job: Job, size: Size) -> float:
    """What a sample costs in the towers that see it, in operations of a linear."""
    work = forward_work(job, [size])
    return work.matmul + ATTENTION_COST * work.attention
