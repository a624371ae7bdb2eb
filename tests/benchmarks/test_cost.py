"""The model of what a job costs, against pages that were counted and layers that were timed."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from cost import SOLVE, Page, floor, job


def test_pages_have_the_patches_and_tokens_that_the_processor_gives_them() -> None:
    assert (Page(1024, 768).patches, Page(1024, 768).tokens) == (3072, 990)
    full = Page(2480, 3508)
    assert full.patches == 34320
    assert full.tokens == pytest.approx(8888, rel=0.005)


def test_a_layer_of_the_vision_tower_takes_what_was_measured() -> None:
    assert Page(1024, 768).vision / 27 == pytest.approx(1.16, rel=0.05)


@pytest.mark.parametrize("method", SOLVE)
def test_what_does_not_depend_on_pages_fades_with_many_and_with_large_ones(method: str) -> None:
    ratios = [
        job(page, count, method) / floor(page, count)
        for page, count in ((Page(1024, 768), 8), (Page(1024, 768), 512), (Page(4096, 4096), 512))
    ]
    assert ratios == sorted(ratios, reverse=True)
    assert ratios[-1] < 1.1
