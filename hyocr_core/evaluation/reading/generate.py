"""One model reading batches of prompts with Transformers: greedy generation, and teacher forcing along given answers.

A batch holds prompts of the same length with images of the same grid, so that nothing before an answer is padded.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList, StoppingCriteriaList

from hyocr_core.contract.decoding import Decoding
from hyocr_core.errors import RunError
from hyocr_core.evaluation.reading.arriving import Decode, Told
from hyocr_core.evaluation.reading.early_stop import EarlyStop
from hyocr_core.models.hunyuan_vl import Embedded, ModelInputs, embed_prompts

if TYPE_CHECKING:
    from transformers import HunYuanVLForConditionalGeneration


@dataclass(frozen=True)
class Prompts:
    """A batch at the input of block 0: token_ids (B, T), embeddings (B, T, hidden size), positions (axes, B, T)."""

    token_ids: Tensor
    embeddings: Tensor
    positions: Tensor

    def page(self, index: int) -> Prompts:
        """One of them alone."""
        own = slice(index, index + 1)
        return Prompts(self.token_ids[own], self.embeddings[own], self.positions[:, own])


@dataclass(frozen=True)
class Written:
    """tokens: the answer to each prompt; first_token_at: `time.perf_counter()` when their first tokens were known."""

    tokens: list[list[int]]
    first_token_at: float


class _Watch(LogitsProcessor):
    """Notes when the first token is known. A NaN has no largest logit: stops instead of reading noise."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.first_token_at = 0.0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if torch.isnan(scores).any():
            raise RunError(f"{self._folder}: the model's logits are NaN after {input_ids.shape[1]} tokens")
        if not self.first_token_at:
            self.first_token_at = time.perf_counter()
        return scores


class Runner:
    """A model of `hyocr_core.models.load_model` and how it is run."""

    def __init__(
        self, model: HunYuanVLForConditionalGeneration, folder: Path, decoding: Decoding, decode: Decode
    ) -> None:
        """decode: the tokenizer's, as the text of answers is made; loops are looked for in what it returns."""
        self.folder = folder
        self.decoding = decoding
        self._decode = decode
        self._model: Any = model  # Transformers' annotations refuse right calls of `generate`
        self._model.generation_config = _greedy(decoding)

    @property
    def vocabulary(self) -> int:
        return int(self._model.config.text_config.vocab_size)

    def embed(self, batch: Sequence[ModelInputs]) -> Prompts:
        """Run the vision tower once on every image and put its features in the place of the image tokens."""
        embedded = embed_prompts(self._model.model, batch, self._model.device)
        token_ids = torch.cat([inputs["input_ids"] for inputs in batch]).to(self._model.device)
        return Prompts(token_ids, embedded.hidden_states, embedded.places)

    @torch.inference_mode()
    def generate(self, prompts: Prompts, told: Callable[[str], None] | None = None) -> Written:
        """The greedy answer to each prompt, end of sequence included unless a limit or a loop cut it.

        told: given the text of the answer to a single prompt, piece by piece as it is written.
        """
        watch = _Watch(self.folder)
        rows, length = prompts.token_ids.shape
        stop = EarlyStop(length, rows, self._decode)
        written = self._model.generate(
            prompts.token_ids,
            inputs_embeds=prompts.embeddings,
            position_ids=prompts.positions,
            attention_mask=torch.ones_like(prompts.token_ids),
            logits_processor=LogitsProcessorList([watch]),
            stopping_criteria=StoppingCriteriaList([stop] if self.decoding.stop_loops else []),
            max_new_tokens=self.room(length),
            streamer=None if told is None else Told(self._decode, told),
        )
        tokens = [self._until_end(row[: stop.written.get(at)]) for at, row in enumerate(written[:, length:].tolist())]
        return Written(tokens, watch.first_token_at)

    def room(self, prompt_tokens: int) -> int:
        """Most tokens of an answer to such a prompt: the limit, or what is left of the context; 1 at least."""
        context = int(self._model.config.text_config.max_position_embeddings)
        return max(min(self.decoding.max_new_tokens, context - prompt_tokens), 1)

    def _until_end(self, tokens: list[int]) -> list[int]:
        ends = (place for place, token in enumerate(tokens) if token in self.decoding.stop_token_ids)
        return tokens[: next(ends, len(tokens)) + 1]

    def ended(self, answer: Sequence[int]) -> bool:
        """Whether the answer ends by itself."""
        return answer[-1] in self.decoding.stop_token_ids

    @torch.inference_mode()
    def forced_states(self, prompts: Prompts, answers: Sequence[Sequence[int]]) -> Tensor:
        """The states from which every token of the answers is predicted: (sum of the answers' lengths, hidden size).

        Shorter answers are filled up at their end, where causal attention keeps the filling out of what is returned.
        """
        forced = self.forced(prompts, answers)
        states = self._model.model.language_model(
            inputs_embeds=forced.hidden_states, position_ids=forced.places, use_cache=False
        ).last_hidden_state
        start = prompts.token_ids.shape[1] - 1
        return torch.cat([states[row, start:][: len(answer)] for row, answer in enumerate(answers)])

    @torch.inference_mode()
    def forced(self, prompts: Prompts, answers: Sequence[Sequence[int]]) -> Embedded:
        """Prompts with their answers, but for each last token, at the input of block 0; filled up at their end."""
        longest = max(map(len, answers))
        filling = self.decoding.stop_token_ids[0]
        fed = torch.full((len(answers), longest - 1), filling, device=prompts.token_ids.device)
        for row, answer in enumerate(answers):
            fed[row, : len(answer) - 1] = torch.tensor(answer[:-1])
        after = prompts.positions[..., -1:] + torch.arange(1, longest, device=prompts.positions.device)
        embeddings = self._model.model.get_input_embeddings()(fed)
        return Embedded(
            torch.cat([prompts.embeddings, embeddings], dim=1), torch.cat([prompts.positions, after], dim=-1)
        )

    @torch.inference_mode()
    def logits(self, states: Tensor) -> Tensor:
        """The head: (positions, hidden size) -> (positions, vocabulary), in the model's dtype."""
        logits: Tensor = self._model.lm_head(states)
        return logits


def _greedy(decoding: Decoding) -> GenerationConfig:
    """Nothing that samples or searches, whatever the checkpoint's own generation config says."""
    ends = list(decoding.stop_token_ids)
    return GenerationConfig(  # type: ignore[no-untyped-call]
        do_sample=False,
        num_beams=1,
        repetition_penalty=decoding.repetition_penalty or 1.0,
        max_new_tokens=decoding.max_new_tokens,
        eos_token_id=ends,
        # Fills up answers that are done, behind their end.
        pad_token_id=ends[0],
    )
