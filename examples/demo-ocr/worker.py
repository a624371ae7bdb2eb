"""Two single-threaded workers share the weights: each computes gradients of half a batch and updates half the weights.

Threads inside every small operation wait for each other at each of them, which is slow on a busy machine; workers meet
only twice a step. The result depends on neither the number of cores nor their load.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from multiprocessing.synchronize import Barrier

import torch
from batches import BatchMaker, Prompt, rope_for
from model import build_model, build_processor
from objective import Losses, losses
from optim import MuonAdam
from readers import QUESTIONS, READERS
from torch import Tensor

from hyocr_core.contract.backend import FORWARDS

WORKERS = 2
# Three of four prompts have the empty system turn that the official clients send.
TURNS = tuple(product((True, True, True, False), QUESTIONS))


@dataclass(frozen=True)
class Recipe:
    """What determines the weights."""

    reader: str
    steps: int
    batch: int = 64
    seed: int = 7
    muon_lr: float = 0.02
    adam_lr: float = 2e-3
    decay: float = 0.01
    warmup: int = 100
    cooldown: float = 0.4

    def scale(self, step: int) -> float:
        """Learning rate factor: warm up, hold, then fall to zero along a straight line."""
        left = (self.steps - step) / max(1.0, self.cooldown * self.steps)
        return min(1.0, (step + 1) / self.warmup, left)


@dataclass(frozen=True)
class Shared:
    """Tensors in shared memory: weights, optimizer state, and one row of gradients per worker."""

    params: dict[str, Tensor]
    state: dict[str, Tensor]
    grads: Tensor

    @staticmethod
    def build(params: dict[str, Tensor], state: dict[str, Tensor]) -> Shared:
        """Move the tensors into shared memory."""
        grads = torch.zeros(WORKERS, sum(tensor.numel() for tensor in params.values()))
        for tensor in (*params.values(), *state.values(), grads):
            tensor.share_memory_()  # type: ignore[no-untyped-call]
        return Shared(params, state, grads)


class Worker:
    """Float32 weights and optimizer state; the forward and backward run in bf16, as the checkpoint will."""

    def __init__(self, rank: int, recipe: Recipe, shared: Shared, barrier: Barrier) -> None:
        self._rank, self._recipe, self._shared, self._barrier = rank, recipe, shared, barrier
        self._leaves = {name: tensor.detach().requires_grad_(True) for name, tensor in shared.params.items()}
        self._optimizer = MuonAdam(shared.params, shared.state, rank, WORKERS)
        self._reader = reader = READERS[recipe.reader]
        model, processor = build_model(reader, recipe.seed), build_processor(reader)
        self._config = model.config
        image = processor.image_processor
        self._norm = torch.tensor([image.image_mean, image.image_std])
        self._batches = BatchMaker(processor.tokenizer, reader, recipe.seed, rank, recipe.batch // WORKERS)
        prompts = [Prompt.build(processor.tokenizer, reader, question, system) for system, question in TURNS]
        self._layouts = [
            (each, rope_for(model, reader, each, torch.bfloat16, own)) for each in prompts for own in FORWARDS
        ]
        sizes = [tensor.numel() for tensor in shared.params.values()]
        self._rows = torch.split(shared.grads, sizes, dim=1)

    def advance(self, step: int) -> Losses:
        """One optimizer step, together with the other workers."""
        prompt, rope = self._layouts[step % len(self._layouts)]
        batch = self._batches.make(step, prompt)
        halves = {name: tensor.to(torch.bfloat16) for name, tensor in self._leaves.items()}
        found = losses(halves, self._config, self._reader, batch, prompt, rope, self._norm)
        scale = self._recipe.scale(step)
        torch.autograd.backward(found.total(scale))
        self._publish()
        self._barrier.wait()
        self._update(step, scale)
        self._barrier.wait()
        return found

    @torch.no_grad()
    def _publish(self) -> None:
        for row, tensor in zip(self._rows, self._leaves.values(), strict=True):
            if tensor.grad is not None:
                row[self._rank].copy_(tensor.grad.flatten())
            tensor.grad = None

    @torch.no_grad()
    def _update(self, step: int, scale: float) -> None:
        owned = set(self._optimizer.owned)
        named = zip(self._shared.params.items(), self._rows, strict=True)
        grads = {name: row.mean(dim=0).view_as(tensor) for (name, tensor), row in named if name in owned}
        recipe = self._recipe
        self._optimizer.step(grads, step, scale * recipe.muon_lr, scale * recipe.adam_lr, recipe.decay)


def work(
    rank: int, recipe: Recipe, shared: Shared, barrier: Barrier, steps: range, after: Callable[[int, Losses], None]
) -> None:
    """A worker's whole life; worker 0 calls after with each finished step, while the others wait."""
    torch.set_num_threads(1)
    worker = Worker(rank, recipe, shared, barrier)
    for step in steps:
        found = worker.advance(step)
        if rank == 0:
            after(step + 1, found)
