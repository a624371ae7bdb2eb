from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from hyocr_core.contract.page_source import Record
from hyocr_core.pages.checked import Pages, check_pages
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.prompts import DEFAULT_PROMPT
from hyocr_core.progress import Silent
from hyocr_core.testing.layout import BOS, IMAGE, IMAGE_END, IMAGE_START, SYSTEM_END, USER

MakePages = Callable[..., list[Record]]


@pytest.fixture
def checked(tiny: Path, pages: MakePages) -> Pages:
    return check_pages(pages(10), load_processor(tiny), Silent())


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_batches_hold_every_page_once_and_mix_no_sizes(checked: Pages, size: int) -> None:
    batches = list(checked.batches(size))
    assert sorted(index for batch in batches for index in batch) == list(range(10))
    for batch in batches:
        assert len(batch) <= size
        shapes = {tuple(checked.inputs(index)["pixel_values"].shape) for index in batch}
        lengths = {checked.inputs(index)["input_ids"].shape for index in batch}
        assert len(shapes) == len(lengths) == 1


def test_big_pages_make_small_batches(checked: Pages, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyocr_core.pages.checked.BATCH_PATCHES", 70)  # pages of 32 or 16 patches
    assert sorted(map(len, checked.batches(100))) == [2, 2, 2, 4]
    monkeypatch.setattr("hyocr_core.pages.checked.BATCH_PATCHES", 1)
    assert set(map(len, checked.batches(100))) == {1}


def test_pages_beyond_the_budget_are_built_again_and_are_the_same(
    tiny: Path, pages: MakePages, checked: Pages, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hyocr_core.pages.checked.KEPT_PATCHES", 50)
    lean = check_pages(pages(10), load_processor(tiny), Silent())
    assert lean.inputs(9) is not lean.inputs(9), "the last page is beyond the budget"
    for index in range(10):
        assert all((checked.inputs(index)[name] == value).all() for name, value in lean.inputs(index).items())


def test_a_runtime_that_makes_the_inputs_itself_gets_the_official_prompt(tiny: Path, pages: MakePages) -> None:
    silent, asked = replace(pages(1)[0], question=None), replace(pages(1)[0], question="Read.", system="Be exact.")
    found = check_pages([silent, asked], load_processor(tiny), Silent())
    picture = IMAGE_START + IMAGE + IMAGE_END
    assert found.text(0).prompt == f"{BOS}{SYSTEM_END}{picture}{DEFAULT_PROMPT}{USER}"
    assert found.text(1).prompt == f"{BOS}Be exact.{SYSTEM_END}{picture}Read.{USER}"
    assert found.text(1).prompt_tokens == found.inputs(1)["input_ids"].shape[1]
