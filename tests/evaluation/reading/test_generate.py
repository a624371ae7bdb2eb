"""Batches against Transformers' own `generate` and `forward`, called for one page at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import HunYuanVLForConditionalGeneration

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import RunError
from hyocr_core.evaluation.reading.generate import Runner
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source
from tests.decoding import decoding
from tests.tiny import STOP

MakePages = Callable[..., list[Record]]


def reference_model(folder: Path) -> Any:
    model: Any = HunYuanVLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def make_runner(model: Any, folder: Path, **changes: Any) -> Runner:
    tokenizer = load_processor(folder).tokenizer
    return Runner(model, folder, decoding(**changes), partial(tokenizer.decode, skip_special_tokens=True))


def model_inputs(folder: Path, records: Sequence[Record]) -> list[dict[str, Tensor]]:
    processor = load_processor(folder)
    return [build_sample(record, processor, with_answer=False).inputs for record in records]


@torch.no_grad()
def one_by_one(model: Any, inputs: Sequence[dict[str, Tensor]], limit: int, **options: Any) -> list[list[int]]:
    answers = []
    for one in inputs:
        whole = model.generate(
            **one, attention_mask=torch.ones_like(one["input_ids"]), do_sample=False, max_new_tokens=limit, **options
        )
        answers.append(whole[0, one["input_ids"].shape[1] :].tolist())
    return answers


def test_a_batch_of_the_demo_reads_what_each_page_reads_alone(demo: Path, heldout: str) -> None:
    model = reference_model(demo)
    inputs = model_inputs(demo, open_source(heldout)[:8])
    expected = one_by_one(model, inputs, 20)
    runner = make_runner(model, demo, max_new_tokens=20)
    assert runner.generate(runner.embed(inputs)).tokens == expected


def test_answers_of_a_batch_end_each_at_its_own_end(tiny: Path, pages: MakePages) -> None:
    model = reference_model(tiny)
    inputs = [one for one in model_inputs(tiny, pages(18)) if one["image_grid_thw"][0, 2] == 16]
    expected = one_by_one(model, inputs, 12)
    assert len({len(answer) for answer in expected}) >= 3, "the random model must write answers of several lengths"
    runner = make_runner(model, tiny, stop_token_ids=STOP)
    answers = runner.generate(runner.embed(inputs)).tokens
    assert answers == expected
    assert [runner.ended(answer) for answer in answers] == [answer[-1] % 6 == 0 for answer in expected]


def test_the_first_token_comes_between_the_start_and_the_last(tiny: Path, pages: MakePages) -> None:
    model = reference_model(tiny)
    steps: list[float] = []
    model.lm_head.register_forward_hook(lambda *_: steps.append(time.perf_counter()))
    runner = make_runner(model, tiny, stop_token_ids=STOP)
    prompts = runner.embed(model_inputs(tiny, pages(1)))
    written = runner.generate(prompts)
    assert len(steps) > 1
    assert steps[0] < written.first_token_at < steps[1]


def test_forced_states_are_those_of_each_page_alone(tiny: Path, pages: MakePages) -> None:
    model = reference_model(tiny)
    inputs = [one for one in model_inputs(tiny, pages(6)) if one["image_grid_thw"][0, 2] == 16]
    answers = [[5, 6, 7], [8], [9, 10, 11, 12], [13, 14]]
    runner = make_runner(model, tiny, stop_token_ids=STOP)
    got = runner.logits(runner.forced_states(runner.embed(inputs), answers))
    expected = []
    for one, answer in zip(inputs, answers, strict=True):
        ids = torch.cat([one["input_ids"], torch.tensor([answer])], dim=1)
        kinds = torch.cat([one["mm_token_type_ids"], torch.zeros(1, len(answer), dtype=torch.long)], dim=1)
        with torch.no_grad():
            logits = model(**(one | {"input_ids": ids, "mm_token_type_ids": kinds})).logits[0]
        expected.append(logits[-len(answer) - 1 : -1])
    torch.testing.assert_close(got, torch.cat(expected), rtol=1e-4, atol=1e-4)


def test_a_model_that_computes_nan_is_stopped(tiny: Path, pages: MakePages) -> None:
    model = reference_model(tiny)
    with torch.no_grad():
        model.model.language_model.norm.weight[0] = float("nan")
    runner = make_runner(model, tiny, stop_token_ids=STOP)
    with pytest.raises(RunError, match=rf"{tiny}.*NaN"):
        runner.generate(runner.embed(model_inputs(tiny, pages(1))))


@torch.no_grad()
def by_the_formula(model: Any, inputs: dict[str, Tensor], penalty: float, limit: int) -> list[int]:
    """Every token anew from the whole: positive logits of tokens in prompt and answer divided, negative multiplied."""
    written: list[int] = []
    while len(written) < limit and not (written and written[-1] in (260, 261)):
        ids = torch.cat([inputs["input_ids"], torch.tensor([written], dtype=torch.long)], dim=1)
        kinds = torch.cat([inputs["mm_token_type_ids"], torch.zeros(1, len(written), dtype=torch.long)], dim=1)
        logits = model(**(inputs | {"input_ids": ids, "mm_token_type_ids": kinds})).logits[0, -1].tolist()
        for token in set(ids[0].tolist()):
            logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
        written.append(max(range(len(logits)), key=logits.__getitem__))
    return written


def test_the_penalty_is_that_of_the_formula_and_of_transformers(tiny: Path, pages: MakePages) -> None:
    model = reference_model(tiny)
    inputs = [one for one in model_inputs(tiny, pages(6)) if one["image_grid_thw"][0, 2] == 16]
    found = {}
    for penalty in (1.0, 1.08, 1.5):
        runner = make_runner(model, tiny, max_new_tokens=20, repetition_penalty=penalty)
        found[penalty] = runner.generate(runner.embed(inputs)).tokens
        assert found[penalty] == one_by_one(model, inputs, 20, repetition_penalty=penalty)
        assert found[penalty][:2] == [by_the_formula(model, one, penalty, 20) for one in inputs[:2]]
    assert found[1.0] != found[1.08] != found[1.5]


def test_an_answer_has_what_the_prompt_leaves_of_the_context(tiny: Path, pages: MakePages) -> None:
    model = reference_model(tiny)
    inputs = model_inputs(tiny, pages(1))
    length = inputs[0]["input_ids"].shape[1]
    model.config.text_config.max_position_embeddings = length + 3
    runner = make_runner(model, tiny, max_new_tokens=12, stop_token_ids=(383,))
    (tokens,) = runner.generate(runner.embed(inputs)).tokens
    assert (len(tokens), runner.room(length), runner.room(length + 9)) == (3, 3, 1)
