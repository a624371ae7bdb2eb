"""The samples on their way to the decoder: through the vision tower, quantized or not, and the token embedding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hyocr_core.checkpoint.writer import StagedCheckpoint
from hyocr_core.contract.types import Batches
from hyocr_core.models.hunyuan_vl import Embedded, ModelInputs
from hyocr_core.run.activations import ActivationCache
from hyocr_core.run.blocks import quantize_blocks
from hyocr_core.run.embedding import EmbeddedSamples, Embedding, embed_samples
from hyocr_core.run.job import Job
from hyocr_core.run.run_record import RunJournal
from hyocr_core.run.streams import BlockBatches, Streams
from hyocr_core.run.token_weights import balanced_weights

QUANTIZED, REFERENCE = "quantized", "reference"
"""Names of the two streams, as their files have them."""


@dataclass(frozen=True)
class Towers:
    """One run on its way to the decoder's first block."""

    job: Job
    stage: StagedCheckpoint
    journal: RunJournal

    def full_precision_batches(self) -> Batches:
        """The samples at the input of the decoder, none of it quantized yet."""
        samples = self._embed("inputs", None)
        model, spill = self.job.model, self.job.run.spill
        cache = ActivationCache(samples.folder, samples.names, model.batch, spill=spill, device=model.device)
        return BlockBatches(Streams(cache), self.job.progress.detail)

    def quantize_vision(self) -> Streams | None:
        """Quantize the vision tower; return what it makes of the samples' images, None when nothing needs that."""
        job, places = self.job, self.job.model.vision_blocks
        if not job.records or self.journal.record.embedded is not None:
            quantize_blocks(job, self.stage, self.journal, places, None)
            return None

        def patches(_index: int, inputs: ModelInputs) -> Embedded:
            return job.model.embed_patches(inputs)

        how = Embedding("patches", self.stage.folder / "patches", patches)
        with job.watch.phase("vision"), job.model.patch_embedding():
            samples = embed_samples(how, job.records, job.processor, job.model.max_tokens, self.journal, job.progress)
        caches = [
            ActivationCache(
                samples.folder,
                samples.names,
                job.model.vision_batch,
                spill=job.run.spill,
                stream=stream,
                device=job.model.device,
            )
            for stream in ((QUANTIZED, REFERENCE) if self._vision_follows else (QUANTIZED,))
        ]
        features = Streams(*caches)
        quantize_blocks(job, self.stage, self.journal, places, features, through_last=True)
        return features

    def decoder_streams(self, features: Streams | None) -> tuple[EmbeddedSamples, Callable[[], Streams]]:
        """Bring every sample to the input of the decoder; return the samples and what loads their streams.

        features: of a quantized vision tower, on both paths.
        """
        samples = self._embed("inputs", None if features is None else features.quantized)
        folders = {QUANTIZED: samples.folder}
        if self.job.follows_reference:
            # Where no method takes both paths through the vision tower, they begin at the decoder, and alike.
            reference = None if features is None else features.reference
            apart = self._vision_follows
            folders[REFERENCE] = self._embed(REFERENCE, reference).folder if apart else samples.folder
        if self.journal.record.embedded is None:
            self.journal.record.embedded = len(samples.names)
            self.journal.save()
        job = self.job
        weights = balanced_weights(samples.kinds) if job.balances_tokens else None

        def load() -> Streams:
            caches = [
                ActivationCache(
                    folder,
                    samples.names,
                    job.model.batch,
                    spill=job.run.spill,
                    weights=weights,
                    stream=stream,
                    device=job.model.device,
                )
                for stream, folder in folders.items()
            ]
            return Streams(*caches)

        return samples, load

    @property
    def _vision_follows(self) -> bool:
        """Whether a method that asks for the full-precision path quantizes linears of the vision tower."""
        vision = self.job.vision_linears
        return any(share.follows_reference(vision & share.options.keys()) for share in self.job.shares)

    def _embed(self, folder: str, vision: ActivationCache | None) -> EmbeddedSamples:
        """Bring every sample to the input of the decoder; vision: the features of a quantized vision tower."""
        job = self.job

        def embed(index: int, inputs: ModelInputs) -> Embedded:
            features = None if vision is None else vision.get(index).hidden_states[0].to(job.model.device)
            return job.model.embed(inputs, features)

        how = Embedding("vision", self.stage.folder / folder, embed)
        with job.watch.phase("vision"), job.model.front(vision=vision is None):
            return embed_samples(how, job.records, job.processor, job.model.max_tokens, self.journal, job.progress)
