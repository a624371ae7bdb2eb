"""Answers that repeat themselves end where everyone's do, whoever wrote them; watching them is cheap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from hyocr_core.contract.page_source import Record
from hyocr_core.evaluation.reading import early_stop
from hyocr_core.evaluation.reading.early_stop import LoopWatch, as_decoded
from hyocr_core.evaluation.reading.generate import Runner
from hyocr_core.evaluation.scores.loops import loop_stop
from hyocr_core.evaluation.scores.score import Answer
from hyocr_core.pages.processor import load_processor
from tests.decoding import decoding
from tests.evaluation.reading.test_generate import model_inputs, reference_model
from tests.evaluation.scores.test_loops import PROSE

MakePages = Callable[..., list[Record]]


def as_bytes(tokens: Sequence[int]) -> str:
    """A tokenizer with a token for each byte, as the demo's is."""
    return bytes(tokens).decode("utf-8", errors="replace")


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 3000),
    st.text("aé漢𠮷", min_size=1, max_size=7),
    st.integers(200, 1200),
    st.sampled_from([1, 7, 64, 200]),
)
def test_a_watch_stops_at_the_look_that_finds_the_loop(start: int, unit: str, copies: int, stride: int) -> None:
    text = PROSE[:start] + unit * copies + PROSE
    tokens = list(text.encode())
    watch = LoopWatch(as_bytes)
    starts = range(0, len(tokens) - stride, stride)
    stopped = next((at + stride for at in starts if watch.repeats(tokens[at : at + stride])), None)
    end = loop_stop(text)
    if end is None:
        assert stopped is None
    else:
        # Not before the look, and as soon as its characters are whole; PROSE follows, so that it comes to that.
        assert stopped is not None
        assert len(text[:end].encode()) <= stopped <= len(text[:end].encode()) + stride + 3


def test_bytes_that_are_no_text_hold_nothing_up() -> None:
    watch = LoopWatch(as_bytes)
    assert not any(watch.repeats([0xFF] * 64) for _ in range(60))
    assert watch.repeats([0xFF] * 300), "4000 marks of a broken character are a loop too"


def test_every_token_is_decoded_a_few_times_at_most() -> None:
    decoded = 0

    def decode(tokens: Sequence[int]) -> str:
        nonlocal decoded
        decoded += len(tokens)
        return as_bytes(tokens)

    watch = LoopWatch(decode)
    tokens = list((PROSE * 11).encode())
    assert len(tokens) > 90_000
    for at in range(0, len(tokens), 64):
        assert not watch.repeats(tokens[at : at + 64])
    assert decoded < 4 * len(tokens)


def test_an_answer_is_cut_where_it_would_have_been_stopped() -> None:
    text = PROSE + "<td></td>" * 5000
    stopped = as_decoded(Answer(text, 9000, ended=False), decoding(stop_loops=True))
    assert stopped == Answer(text[:4000], 9000, ended=True)
    assert as_decoded(Answer(text, 9000, ended=False), decoding()) == Answer(text, 9000, ended=False)
    assert as_decoded(Answer(PROSE, 7, ended=False), decoding(stop_loops=True)) == Answer(PROSE, 7, ended=False)


def writes(model: Any, scripts: Sequence[Callable[[int], int]]) -> list[int]:
    """Let row r of a model write the token `scripts[r](step)`; returns the rows of every step."""
    rows: list[int] = []

    def say(_module: Any, _args: Any, logits: Tensor) -> Tensor:
        step = len(rows)
        rows.append(len(logits))
        forced = torch.zeros_like(logits)
        for row, script in enumerate(scripts):
            forced[row, -1, script(step)] = 1.0
        return forced

    model.lm_head.register_forward_hook(say)
    return rows


@pytest.mark.parametrize("stop", [True, False])
def test_each_answer_of_a_batch_is_stopped_by_itself(
    tiny: Path, pages: MakePages, stop: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One repeats itself, one goes on, one ends; none knows of the others."""
    monkeypatch.setattr(early_stop, "STOP_FROM", 80)
    model, tokenizer = reference_model(tiny), load_processor(tiny).tokenizer
    inputs = [one for one in model_inputs(tiny, pages(18)) if one["image_grid_thw"][0, 2] == 16][:3]
    a, end = tokenizer.convert_tokens_to_ids("a"), 261
    numbers = tokenizer.convert_tokens_to_ids(list(",".join(map(str, range(99)))))
    steps = writes(model, [lambda _: a, numbers.__getitem__, lambda step: end if step == 5 else a + 1])
    how = decoding(stop_loops=stop, max_new_tokens=150, stop_token_ids=(end,))
    runner = Runner(model, tiny, how, lambda tokens: tokenizer.decode(tokens, skip_special_tokens=True))
    loop, other, short = runner.generate(runner.embed(inputs)).tokens
    assert len(steps) == 150
    assert loop == [a] * (128 if stop else 150)
    assert other == numbers[:150]
    assert short == [a + 1] * 5 + [end]
