"""What the tokens of a sample are, against its text; weights against what they are to add up to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer

from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source
from hyocr_core.run.token_weights import ANSWER, IMAGE, PROMPT, balanced_weights, token_kinds

DEMO = Path(__file__).parents[2] / "examples" / "demo-ocr"


def test_every_token_of_a_page_has_its_kind(processor: Any) -> None:
    record = open_source(str(DEMO / "data" / "calib.jsonl"))[0]
    sample = build_sample(record, processor, with_answer=True)
    ids, kinds = sample.inputs["input_ids"][0], token_kinds(sample)
    image = ids == processor.image_token_id
    tokenizer = Tokenizer.from_file(str(DEMO / "checkpoint" / "tokenizer.json"))
    assert image.sum() > 1
    assert torch.equal(kinds == IMAGE, image)
    assert tokenizer.decode(ids[kinds == ANSWER].tolist()) == record.answer
    assert ids[kinds == ANSWER][-1] in (260, 261), "the end of the turn is the answer's"
    assert tokenizer.decode(ids[kinds == PROMPT].tolist()) == "Extract the text in the image."


def test_without_an_answer_there_is_no_answer_token(processor: Any) -> None:
    record = open_source(str(DEMO / "data" / "calib.jsonl"))[0]
    kinds = token_kinds(build_sample(record, processor, with_answer=False))
    assert set(kinds.tolist()) == {IMAGE, PROMPT}


@pytest.mark.parametrize("there", [(PROMPT, IMAGE, ANSWER), (PROMPT, IMAGE), (ANSWER,)])
def test_kinds_weigh_the_same_in_total_over_all_samples(there: tuple[int, ...]) -> None:
    gen = torch.Generator().manual_seed(0)
    drawn = [torch.randint(100, (tokens,), generator=gen) for tokens in (1, 40, 700)]
    # The first of the kinds is about ten times as frequent as the others.
    kinds = [torch.tensor(there)[(own % 20 - 17).clamp(0, len(there) - 1)] for own in drawn]
    weights = balanced_weights(kinds)
    assert [len(own) for own in weights] == [1, 40, 700]
    every, weight = torch.cat(kinds), torch.cat(weights).double()
    assert weight.dtype == torch.float64
    assert {own.dtype for own in weights} == {torch.float32}
    assert weight.mean().item() == pytest.approx(1)
    totals = [weight[every == kind].sum().item() for kind in there]
    assert totals == pytest.approx([741 / len(there)] * len(there))
