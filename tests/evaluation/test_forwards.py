"""A model read by the reference's forward, by Transformers', and by both beside each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BadInputError, ConfigError
from hyocr_core.models.load import load_model
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.settings.eval_config import merge_eval_config
from tests.evaluating import evaluate

MakePages = Callable[..., list[Record]]


def test_the_forwards_of_a_model_differ_on_pages_and_agree_on_text(tiny: Path, pages: MakePages) -> None:
    inputs = build_sample(pages(1)[0], load_processor(tiny), with_answer=False).inputs
    text = {"input_ids": inputs["input_ids"][:, -8:]}
    ours, theirs = (load_model(tiny, torch.device("cpu"), forward) for forward in ("reference", "transformers"))
    with torch.no_grad():
        assert not torch.allclose(ours(**inputs).logits, theirs(**inputs).logits, atol=1e-2)
        assert torch.equal(ours(**text).logits, theirs(**text).logits)


def test_both_are_read_beside_each_other(tiny: Path, pages: MakePages) -> None:
    records = pages(4)
    both = evaluate(tiny, records, forward="reference,transformers")
    assert both.baseline is not None
    assert both.comparison is not None
    assert both.comparison.kl is not None
    assert both.comparison.kl > 0
    assert (both.baseline.forward, both.model.forward) == ("reference", "transformers")
    assert not both.blocks, "the blocks are the same: only what they are given differs"
    alone = [evaluate(tiny, records, forward=forward) for forward in ("reference", "transformers")]
    assert [page.baseline_text for page in both.pages] == [page.text for page in alone[0].pages]
    assert [page.text for page in both.pages] == [page.text for page in alone[1].pages]


def test_a_forward_beside_itself_is_no_difference(tiny: Path, pages: MakePages) -> None:
    same = evaluate(tiny, pages(2), baseline=tiny, forward="transformers")
    assert same.comparison is not None
    assert same.comparison.kl == 0
    assert same.model.forward == "transformers"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forward": "theirs"}, "should be 'reference' or 'transformers'"),
        ({"forward": "reference,reference"}, "should be reference or transformers, or both"),
        ({"forward": "reference,transformers", "baseline": "other"}, "baseline is for one forward"),
        ({"forward": "reference,transformers", "rounded": True}, "rounded is for one forward"),
    ],
)
def test_what_makes_no_sense_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        merge_eval_config(None, {"model": "m", "data": "d", **settings})


def test_only_this_process_can_compute_both(tiny: Path, pages: MakePages) -> None:
    with pytest.raises(BadInputError, match="both forwards can be read with --backend auto"):
        evaluate(tiny, pages(1), forward="reference,transformers", backend="http://127.0.0.1:9/v1")
