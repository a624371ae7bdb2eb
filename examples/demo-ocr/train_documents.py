"""Train the reader of small documents on the CPU: one process, one thread, some minutes of CPU time."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
import torch
from batches import Prompt, cut, rope_for
from fast_forward import decoder, logits, to_patches, vision
from lines import IGNORE
from model import build_model, build_processor, save_checkpoint
from optim import MuonAdam, fresh_state
from readers import QUESTIONS, place
from small_documents import CELLS, COLUMNS, DOCUMENTS, EMPTY, READER, ROWS, Document, random_document
from torch import Tensor
from torch.nn import functional
from transformers import PreTrainedTokenizerFast
from worker import Recipe

from hyocr_core.contract.backend import FORWARDS
from hyocr_core.testing.layout import ASSISTANT, PAD, token_id

UNUSED = ("lm_head.weight", "image_sep")  # the one is tied, the other read by no image of the architecture
MAX_NEW_TOKENS = 128
REPORT_EVERY = 50


@dataclass(frozen=True)
class Batch:
    """pixels [B, height, width]; ids, answers, where [B, T]; digits [B, CELLS, 2]. where: a cell, CELLS for markup."""

    pixels: Tensor
    ids: Tensor
    answers: Tensor
    where: Tensor
    digits: Tensor


def encode(documents: list[Document], tokenizer: PreTrainedTokenizerFast, prompt: Prompt) -> Batch:
    """Token after each prefix of the answers, behind the prompt."""
    stop, pad = token_id(tokenizer, ASSISTANT), token_id(tokenizer, PAD)
    rows = []
    for document in documents:
        tokens: list[int] = []
        cells: list[int] = []
        for text, cell in document.pieces:
            found = tokenizer.encode(text) if text else []
            tokens += found
            cells += [CELLS if cell is None else cell] * len(found)
        rows.append(([*tokens, stop], [*cells, CELLS]))
    longest = max(len(tokens) for tokens, _ in rows)
    answers = np.full((len(rows), longest), IGNORE, dtype=np.int64)
    where = answers.copy()
    ids = np.full((len(rows), len(prompt.ids) + longest - 1), pad, dtype=np.int64)
    ids[:, : len(prompt.ids)] = prompt.ids
    for row, (tokens, cells) in enumerate(rows):
        answers[row, : len(tokens)] = tokens
        where[row, : len(cells)] = cells
        ids[row, len(prompt.ids) : len(prompt.ids) + len(tokens) - 1] = tokens[:-1]
    digits = np.stack([document.digits for document in documents])
    pixels = np.stack([document.pixels for document in documents])
    return Batch(*(torch.from_numpy(array) for array in (pixels, ids, answers, where, digits)))


def aux_parameters(seed: int) -> dict[str, Tensor]:
    """Fresh heads that are thrown away: both digits of an image token, and the cell of the next character."""
    generator = torch.Generator().manual_seed(seed)
    outputs = {"aux.digits": 2 * (EMPTY + 1), "aux.where": CELLS + 1}
    width = READER.text["hidden_size"]
    return {name: torch.randn(count, width, generator=generator) * 0.02 for name, count in outputs.items()}


class Trainer:
    """Float32 weights and optimizer state; forward and backward run in bf16, as the checkpoint will."""

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        model, processor = build_model(READER, recipe.seed), build_processor(READER)
        self._config, self._tokenizer = model.config, processor.tokenizer
        named = {name: p.detach() for name, p in model.named_parameters() if not name.endswith(UNUSED)}
        self.params = {**named, **aux_parameters(recipe.seed)}
        self._leaves = {name: tensor.requires_grad_(True) for name, tensor in self.params.items()}
        self._optimizer = MuonAdam(self.params, fresh_state(self.params), 0, 1)
        image = processor.image_processor
        self._norm = torch.tensor([image.image_mean, image.image_std])
        self._prompt = Prompt.build(processor.tokenizer, READER, QUESTIONS[1], system=True)
        self._ropes = [rope_for(model, READER, self._prompt, torch.bfloat16, forward) for forward in FORWARDS]

    def advance(self, step: int) -> dict[str, float]:
        """One step on pages that depend on the seed and the step alone; the losses, and the share of right tokens."""
        recipe = self._recipe
        rng = np.random.default_rng([recipe.seed, step])
        batch = encode([random_document(rng, "train") for _ in range(recipe.batch)], self._tokenizer, self._prompt)
        scale = recipe.scale(step)
        found = self._losses(batch, step)
        torch.autograd.backward(found["text"] + scale * (found["digits"] + 0.5 * found["where"]))
        grads = {name: p.grad for name, p in self._leaves.items() if p.grad is not None}
        with torch.no_grad():
            known = {name: grads.get(name, torch.zeros_like(tensor)) for name, tensor in self.params.items()}
            self._optimizer.step(known, step, scale * recipe.muon_lr, scale * recipe.adam_lr, recipe.decay)
        for parameter in self._leaves.values():
            parameter.grad = None
        return {name: round(float(value.detach()), 4) for name, value in found.items()}

    def _losses(self, batch: Batch, step: int) -> dict[str, Tensor]:
        p = {name: tensor.to(torch.bfloat16) for name, tensor in self._leaves.items()}
        rope = self._ropes[step % len(self._ropes)]
        patches = to_patches(batch.pixels, self._norm[0], self._norm[1]).to(torch.bfloat16)
        image = vision(p, self._config, patches, READER.grid, rope.forward)
        cells = image[:, 1:-1].view(len(image), ROWS, COLUMNS + 1, -1)[:, :, :-1].flatten(1, 2)
        states = decoder(p, self._config, batch.ids, image, self._prompt.image_start, cut(rope, batch.ids.shape[1]))
        answering = slice(len(self._prompt.ids) - 1, None)
        middle = functional.rms_norm(states[0][:, answering], (READER.text["hidden_size"],))
        scores = logits(p, states[-1][:, answering])
        known = batch.answers != IGNORE
        seen = functional.linear(cells, p["aux.digits"])
        return {
            "text": _cross_entropy(scores, batch.answers),
            "digits": _cross_entropy(seen.view(*batch.digits.shape, -1), batch.digits),
            "where": _cross_entropy(functional.linear(middle, p["aux.where"]), batch.where),
            "accuracy": ((scores.argmax(-1) == batch.answers) & known).sum() / known.sum(),
        }


def _cross_entropy(scores: Tensor, target: Tensor) -> Tensor:
    return functional.cross_entropy(scores.flatten(0, -2).float(), target.flatten(), ignore_index=IGNORE)


def save(trainer: Trainer, out: Path) -> None:
    """Write the checkpoint, whose answers may be as long as a table."""
    weights = {name: p.detach() for name, p in trainer.params.items() if not name.startswith("aux.")}
    save_checkpoint(READER, weights, out)
    file = out / "generation_config.json"
    settings = json.loads(file.read_text(encoding="utf-8")) | {"max_new_tokens": MAX_NEW_TOKENS}
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


@click.command(help=__doc__)
@click.option("--steps", default=READER.steps, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Checkpoint folder, instead of the reader's own.")
@click.option("--seed", default=7, show_default=True)
@click.option("--save-every", default=250, show_default=True, help="Steps between checkpoints.")
def main(steps: int, out: Path | None, seed: int, save_every: int) -> None:
    trainer = Trainer(Recipe(DOCUMENTS, steps, batch=32, seed=seed))
    out, since = out or place("checkpoint", DOCUMENTS), time.monotonic()
    for step in range(steps):
        found = trainer.advance(step)
        if (step + 1) % REPORT_EVERY == 0:
            seconds = round((time.monotonic() - since) / REPORT_EVERY, 3)
            click.echo(json.dumps({"step": step + 1, "s_per_step": seconds, **found}))
            since = time.monotonic()
        if (step + 1) % save_every == 0 or step + 1 == steps:
            save(trainer, out)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
