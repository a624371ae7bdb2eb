"""What each candidate does to each group of layers: measured block by block, forwards once and backwards once.

The pages go forwards through the full-precision model, and what stands before each block goes to the disk. Draws of the
predictions' Fisher information then come back through the blocks, from the last to the first. At each block every
candidate quantizes every group, and how that moves the group's outputs is multiplied with the draw that arrives there:
half the square is the change of KL to second order, all other layers being as they are. Memory holds one block.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from hyocr_core.checkpoint.durable import sync_folder, writing
from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.shards import iterate_shard
from hyocr_core.contract.types import Batch, Block
from hyocr_core.errors import CalibrationError, RunError
from hyocr_core.kit.checks import is_finite
from hyocr_core.models.hunyuan_vl import Embedded, ModelInputs
from hyocr_core.models.wiring import Place
from hyocr_core.run.activations import ActivationCache, load_embedded, sample_path
from hyocr_core.run.embedding import EmbeddedSamples, Embedding, embed_samples
from hyocr_core.run.token_weights import ANSWER, IMAGE, balanced_weights
from hyocr_core.search.block_changes import Changes, changes_of
from hyocr_core.search.candidates import Group
from hyocr_core.search.change import watched
from hyocr_core.search.fisher import drawn_gradients
from hyocr_core.search.search_plan import SearchPlan
from hyocr_core.search.search_record import Effect, SearchRecord, group_name

GRADIENTS = "gradients"


@dataclass(frozen=True)
class Leg:
    """The blocks of one tower. folder: holds, by level, what stands before each of its blocks, and after the last."""

    folder: Path
    places: Sequence[Place]
    to_batch: Callable[[str, Embedded], Batch]

    def states(self, level: int) -> Path:
        return self.folder / f"{self.folder.name}-{level:05d}"

    def gradients(self, level: int) -> Path:
        return self.folder / f"{GRADIENTS}-{level:05d}"

    @property
    def last(self) -> int:
        """The level behind the last block."""
        return len(self.places)


class Sensitivity:
    """One pass over a model. folder: keeps what an interrupted one has done, as `journal` says."""

    def __init__(self, plan: SearchPlan, folder: Path, journal: Journal[SearchRecord]) -> None:
        self._plan = plan
        self._journal = journal
        self._folder = folder
        model = plan.job.model
        self._decoder = Leg(folder / "decoder", model.decoder_blocks, model.batch)
        self._vision = Leg(folder / "vision", model.vision_blocks, model.vision_batch) if plan.config.vision else None

    def measure(self) -> dict[str, dict[str, Effect]]:
        """Effects by group and candidate.

        Raises RunError where something is NaN, CalibrationError as `embed_samples`.
        """
        record = self._journal.record
        legs = [leg for leg in (self._vision, self._decoder) if leg is not None]
        if any(place.key not in record.measured for leg in legs for place in leg.places):
            samples = self._embed()
            scored = self._scored(samples)
            self._forward(self._decoder, samples)
            self._start_draws(samples, scored)
            self._backward(self._decoder, samples, scored)
            if self._vision is not None:
                self._enter_vision(samples, scored)
                self._backward(self._vision, samples, scored)
        for leg in legs:
            shutil.rmtree(leg.folder, ignore_errors=True)
        return {name: dict(found) for each in record.measured.values() for name, found in each.items()}

    def _embed(self) -> EmbeddedSamples:
        """Bring every page to the input of the decoder, block by block where the vision tower is measured too."""
        job, features = self._plan.job, None
        if self._vision is not None:
            how = Embedding("patches", self._vision.states(0), lambda _number, inputs: job.model.embed_patches(inputs))
            with job.model.patch_embedding():
                samples = self._embed_into(how)
            self._forward(self._vision, samples)
            features = self._vision.states(self._vision.last)

        def embed(number: int, inputs: ModelInputs) -> Embedded:
            seen = None
            if features is not None:
                seen = load_embedded(sample_path(features, number)).hidden_states[0].to(job.model.device)
            return job.model.embed(inputs, seen)

        with job.model.front(vision=features is None):
            return self._embed_into(Embedding("vision", self._decoder.states(0), embed))

    def _embed_into(self, how: Embedding) -> EmbeddedSamples:
        job = self._plan.job
        how.folder.parent.mkdir(exist_ok=True)
        return embed_samples(how, job.records, job.processor, job.model.max_tokens, self._journal, job.progress)

    def _scored(self, samples: EmbeddedSamples) -> list[int]:
        """The pages to measure on: those of them that have an answer."""
        after = range(self._calibrated(samples), len(samples.names))
        answered = [index for index in after if bool((samples.kinds[index] == ANSWER).any())]
        if not answered:
            raise CalibrationError("no page to measure on has an answer along which predictions could be compared")
        return answered

    def _calibrated(self, samples: EmbeddedSamples) -> int:
        """How many of the usable samples methods are calibrated on: those before the first to measure on."""
        measured = {record.name for record in self._plan.job.records[self._plan.calibrated :]}
        return sum(name not in measured for name in samples.names)

    def _forward(self, leg: Leg, samples: EmbeddedSamples) -> None:
        record, job = self._journal.record, self._plan.job
        job.progress.start("forward", leg.last)
        for level, place in enumerate(leg.places):
            if place.key not in record.forwarded:
                leg.states(level + 1).mkdir(exist_ok=True)
                with torch.no_grad(), job.model.block(place, level, ()) as block:
                    for number, name in zip(samples.numbers, samples.names, strict=True):
                        self._step(leg, block, level, number, name)
                _flush(leg.states(level + 1))
                record.forwarded.append(place.key)
                self._journal.save()
            job.progress.step(place.key)

    def _step(self, leg: Leg, block: Block, level: int, number: int, name: str) -> None:
        self._plan.job.progress.detail(f"{block.name}: {name}")
        embedded = load_embedded(sample_path(leg.states(level), number))
        output = block.run(leg.to_batch(name, embedded))
        if not is_finite(output):
            raise RunError(f"{block.name}: its output is NaN or infinite for the sample {name}")
        _save(sample_path(leg.states(level + 1), number), vars(Embedded(output.to("cpu"), embedded.places)))

    def _start_draws(self, samples: EmbeddedSamples, scored: Sequence[int]) -> None:
        """Draw at the predictions, and bring the draws below the head."""
        leg, job, config = self._decoder, self._plan.job, self._plan.config
        if self._journal.record.drawn:
            return
        leg.gradients(leg.last).mkdir(exist_ok=True)
        job.progress.start("predictions", len(scored))
        with job.model.head() as head:
            for index in scored:
                path = sample_path(leg.states(leg.last), samples.numbers[index])
                states = load_embedded(path).hidden_states.to(job.model.device)
                # A token is predicted from the one before it.
                rows = (samples.kinds[index][1:] == ANSWER).nonzero().flatten().to(states.device)
                seed = int(hashlib.sha256(f"{config.seed}-{index}".encode()).hexdigest()[:12], 16)
                found = drawn_gradients(states, rows, head, config.draws, seed)
                _save(_gradient_path(leg, leg.last, index), {GRADIENTS: found.to(states.dtype)})
                job.progress.step(samples.names[index])
        _flush(leg.gradients(leg.last))
        self._journal.record.drawn = True
        self._journal.save()

    def _backward(self, leg: Leg, samples: EmbeddedSamples, scored: Sequence[int]) -> None:
        job, record = self._plan.job, self._journal.record
        tokens = sum(int((samples.kinds[index] == ANSWER).sum()) for index in scored)
        job.progress.start("sensitivity", leg.last)
        for level in reversed(range(leg.last)):
            place = leg.places[level]
            if place.key not in record.measured:
                record.measured[place.key] = self._measure_block(leg, level, samples, scored, tokens)
                self._journal.save()
            for behind in (leg.gradients(level + 1), leg.states(level + 1)):
                shutil.rmtree(behind, ignore_errors=True)
            job.progress.step(place.key)

    def _measure_block(
        self, leg: Leg, level: int, samples: EmbeddedSamples, scored: Sequence[int], tokens: int
    ) -> dict[str, dict[str, Effect]]:
        job, place = self._plan.job, leg.places[level]
        wanted = [name for group in job.model.groups(place) for name in group]
        leg.gradients(level).mkdir(exist_ok=True)
        found: dict[tuple[Group, str], list[Tensor]] = {}
        with job.model.block(place, level, wanted) as block:
            block.module.requires_grad_(False)
            changes = changes_of(self._plan, block, place, self._cache(leg, level, samples))
            for index in scored:
                job.progress.detail(f"{block.name}: measure {samples.names[index]}")
                for key, squares in self._measure_page(leg, level, block, changes, samples, index).items():
                    found.setdefault(key, []).append(squares)
        _flush(leg.gradients(level))
        effects: dict[str, dict[str, Effect]] = {}
        for (group, candidate), pages in found.items():
            effects.setdefault(group_name(group), {})[candidate] = Effect.of(torch.stack(pages), tokens)
        return effects

    def _cache(self, leg: Leg, level: int, samples: EmbeddedSamples) -> ActivationCache:
        balanced = any(each.job.balances_tokens for each in self._plan.candidates) and leg is self._decoder
        count, spill = self._calibrated(samples), self._plan.config.spill
        weights = balanced_weights(samples.kinds[:count]) if balanced else None
        return ActivationCache(
            leg.states(level),
            samples.names[:count],
            leg.to_batch,
            spill=spill,
            weights=weights,
            numbers=samples.numbers[:count],
        )

    def _measure_page(
        self, leg: Leg, level: int, block: Block, changes: Changes, samples: EmbeddedSamples, index: int
    ) -> dict[tuple[Group, str], Tensor]:
        """Bring a page's draws in front of the block; for each change half the squared products with it, (draws,)."""
        embedded = load_embedded(sample_path(leg.states(level), samples.numbers[index]))
        batch = leg.to_batch("", embedded)
        inputs = batch.hidden_states.requires_grad_()
        with torch.enable_grad(), watched(block.layers) as seen:
            output = block.run(replace(batch, hidden_states=inputs))
        names, outputs = list(seen), [value for _, value in seen.values()]
        drawn = _load(leg, level + 1, index).to(output.device)
        # For each draw the gradient at the inputs, and at the output of each linear.
        passed = [torch.autograd.grad(output, [inputs, *outputs], one[None], retain_graph=True) for one in drawn]
        gradients, *rest = (torch.cat(each) for each in zip(*passed, strict=True))
        arriving = {name: each.flatten(1).float() for name, each in zip(names, rest, strict=True)}
        halves = {}
        for key, linears in changes.items():
            moved = {name: change.of_output(seen[name][0]) for name, change in linears.items()}
            products = [arriving[name] @ change.flatten().float() for name, change in moved.items()]
            halves[key] = torch.stack(products).sum(0).double().square().cpu() / 2
        if not is_finite(gradients):
            raise RunError(f"{block.name}: its gradient is NaN or infinite for the sample {index}")
        _save(_gradient_path(leg, level, index), {GRADIENTS: gradients})
        return halves

    def _enter_vision(self, samples: EmbeddedSamples, scored: Sequence[int]) -> None:
        """Hand the draws that arrive at the image tokens to the vision tower."""
        if self._vision is None:
            return
        self._vision.gradients(self._vision.last).mkdir(exist_ok=True)
        for index in scored:
            path = _gradient_path(self._decoder, 0, index)
            if path.is_file():
                image = (samples.kinds[index] == IMAGE).nonzero().flatten()
                arrived = _load(self._decoder, 0, index)[:, image]
                _save(_gradient_path(self._vision, self._vision.last, index), {GRADIENTS: arrived})


def _gradient_path(leg: Leg, level: int, index: int) -> Path:
    return sample_path(leg.gradients(level), index)


def _save(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write a file that counts only once `_flush` has brought its whole folder to the disk."""
    with writing(path):
        save_file({name: tensor.to("cpu").contiguous() for name, tensor in tensors.items()}, path)


def _flush(folder: Path) -> None:
    with writing(folder):
        sync_folder(folder)


def _load(leg: Leg, level: int, index: int) -> Tensor:
    return dict(iterate_shard(_gradient_path(leg, level, index), (GRADIENTS,)))[GRADIENTS]
