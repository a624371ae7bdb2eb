"""Batches against Transformers' own `generate` and `forward`, called for one page at a time."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import HunYuanVLForConditionalGeneration

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CheckpointError, RunError
from hyocr_core.evaluation.reading.generate import DEFAULT_MAX_NEW_TOKENS, Runner, greedy_config
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source

MakePages = Callable[..., list[Record]]


def reference_model(folder: Path) -> Any:
    model: Any = HunYuanVLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    return model.eval()


def model_inputs(folder: Path, records: Sequence[Record]) -> list[dict[str, Tensor]]:
    processor = load_processor(folder)
    return [build_sample(record, processor, with_answer=False).inputs for record in records]


@torch.no_grad()
def one_by_one(model: Any, inputs: Sequence[dict[str, Tensor]], limit: int) -> list[list[int]]:
    answers = []
    for one in inputs:
        whole = model.generate(
            **one, attention_mask=torch.ones_like(one["input_ids"]), do_sample=False, max_new_tokens=limit
        )
        answers.append(whole[0, one["input_ids"].shape[1] :].tolist())
    return answers


def test_a_batch_of_the_demo_reads_what_each_page_reads_alone(demo: Path, heldout: str) -> None:
    model = reference_model(demo)
    inputs = model_inputs(demo, open_source(heldout)[:8])
    expected = one_by_one(model, inputs, 20)
    runner = Runner(model, demo, 20)
    assert runner.generate(runner.embed(inputs)).tokens == expected


def test_answers_of_a_batch_end_each_at_its_own_end(tiny: Path, pages: MakePages) -> None:
    model = reference_model(tiny)
    inputs = [one for one in model_inputs(tiny, pages(18)) if one["image_grid_thw"][0, 2] == 16]
    expected = one_by_one(model, inputs, 12)
    assert len({len(answer) for answer in expected}) >= 3, "the random model must write answers of several lengths"
    runner = Runner(model, tiny, None)
    answers = runner.generate(runner.embed(inputs)).tokens
    assert answers == expected
    assert [runner.ended(answer) for answer in answers] == [answer[-1] % 6 == 0 for answer in expected]


def test_the_first_token_comes_between_the_start_and_the_last(tiny: Path, pages: MakePages) -> None:
    model = reference_model(tiny)
    steps: list[float] = []
    model.lm_head.register_forward_hook(lambda *_: steps.append(time.perf_counter()))
    runner = Runner(model, tiny, None)
    prompts = runner.embed(model_inputs(tiny, pages(1)))
    written = runner.generate(prompts)
    assert len(steps) > 1
    assert steps[0] < written.first_token_at < steps[1]


def test_forced_states_are_those_of_each_page_alone(tiny: Path, pages: MakePages) -> None:
    model = reference_model(tiny)
    inputs = [one for one in model_inputs(tiny, pages(6)) if one["image_grid_thw"][0, 2] == 16]
    answers = [[5, 6, 7], [8], [9, 10, 11, 12], [13, 14]]
    runner = Runner(model, tiny, None)
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
    runner = Runner(model, tiny, None)
    with pytest.raises(RunError, match=rf"{tiny}.*NaN"):
        runner.generate(runner.embed(model_inputs(tiny, pages(1))))


def with_generation_config(tiny: Path, tmp_path: Path, text: str | None) -> Path:
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder, ignore=shutil.ignore_patterns("generation_config.json"))
    if text is not None:
        (folder / "generation_config.json").write_text(text, encoding="utf-8")
    return folder


def test_sampling_and_beams_of_the_checkpoint_are_overruled(tiny: Path, tmp_path: Path) -> None:
    own = {"do_sample": True, "temperature": 0.7, "top_k": 20, "num_beams": 4, "repetition_penalty": 1.05}
    folder = with_generation_config(tiny, tmp_path, json.dumps(own | {"eos_token_id": 260, "max_new_tokens": 99}))
    config = greedy_config(folder, reference_model(tiny).config.text_config, None)
    assert (config.do_sample, config.num_beams, config.temperature, config.top_k) == (False, 1, None, None)
    assert (config.repetition_penalty, config.eos_token_id, config.max_new_tokens) == (1.05, [260], 99)
    assert greedy_config(folder, reference_model(tiny).config.text_config, 7).max_new_tokens == 7


def test_without_a_generation_config_the_models_own_end_counts(tiny: Path, tmp_path: Path) -> None:
    folder = with_generation_config(tiny, tmp_path, None)
    config = greedy_config(folder, reference_model(tiny).config.text_config, None)
    assert (config.eos_token_id, config.max_new_tokens) == ([260], DEFAULT_MAX_NEW_TOKENS)


def test_a_broken_generation_config_is_named(tiny: Path, tmp_path: Path) -> None:
    folder = with_generation_config(tiny, tmp_path, "{")
    with pytest.raises(CheckpointError, match=r"generation_config\.json"):
        greedy_config(folder, reference_model(tiny).config.text_config, None)
