"""Whether the published model fits, and what is said to change when it does not."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from transformers.models.hunyuan_vl.image_processing_pil_hunyuan_vl import HunYuanVLImageProcessorPil

from hyocr_core.models.fitting import VLLM_SHARE, Fit, ServingMemory, serving_memory
from hyocr_core.models.serving_memory import Servable, ServedLoad
from tests.models.test_working_memory import PUBLISHED

GB = 10**9
FULL, INT4 = 1_992_000_000, 1_380_000_000


@pytest.fixture
def served() -> Servable:
    """HunyuanOCR 1.5 in full precision."""
    pixels = HunYuanVLImageProcessorPil(size={"shortest_edge": 512 * 512, "longest_edge": 4096 * 4096})
    return Servable(
        shapes=PUBLISHED,
        stored=FULL,
        unpacked=FULL,
        int4=INT4,
        keeps_packed=True,
        fp8_cache=False,
        runtimes=("vLLM", "Transformers"),
        image_processor=pixels,
    )


def ask(served: Servable, limit: float, **load: Any) -> ServingMemory:
    return serving_memory(served, ServedLoad(**load), int(limit * GB))


def of(memory: ServingMemory, runtime: str) -> Fit:
    return next(fit for fit in memory.fits if fit.runtime == runtime)


def test_an_a4_scan(served: Servable) -> None:
    found = ask(served, 24)
    assert (found.page, found.patches, found.image_tokens) == ((2496, 3520), 34_320, 8_692)
    assert found.page_tokens == 8_692 + 128 + 8_192
    in_vllm, in_transformers = found.runtimes
    assert in_vllm.kv_cache_per_page == 17_024 * 98_304  # whole blocks of 16
    assert in_transformers.kv_cache_per_page == 17_012 * 98_304
    # vLLM tries the largest page that there may be, Transformers sees eight of these at once.
    assert in_vllm.vision == PUBLISHED.vision(65_536)
    assert in_transformers.vision == PUBLISHED.vision(8 * 34_320)
    assert all(fit.fits and not fit.changes for fit in found.fits)
    assert not found.refused


def test_vllm_takes_its_share_of_a_card(served: Servable) -> None:
    total = ask(served, 24).runtimes[0].total
    assert of(ask(served, total / VLLM_SHARE / GB + 1e-6), "vLLM").fits
    assert not of(ask(served, total / GB), "vLLM").fits


def test_what_alone_is_enough_is_said_with_its_number(served: Servable) -> None:
    found = ask(served, 8)
    assert found.refused
    changes = {change.what: change for change in of(found, "vLLM").changes}
    assert changes["one page at once (--max-num-seqs 1)"].fits
    assert not changes["an FP8 KV cache (--kv-cache-dtype fp8)"].fits
    assert changes["weights in 4 bits (--method gptq)"].total == of(found, "vLLM").total - (FULL - INT4)
    assert not any(what.startswith("together") for what in changes)
    for change in changes.values():
        assert change.fits == (change.total <= of(found, "vLLM").limit)


@pytest.mark.parametrize("runtime", ["vLLM", "Transformers"])
def test_the_advice_holds_when_it_is_followed(runtime: str, served: Servable) -> None:
    limit = 12
    for change in of(ask(served, limit), runtime).changes:
        load: dict[str, Any] = {}
        number = int("".join(c for c in change.what.split(" (")[0] if c.isdigit()) or 1)
        if "at once" in change.what:
            load = {"pages_at_once": number}
        elif "pixels" in change.what:
            load = {"max_pixels": number}
        elif "answers" in change.what:
            load = {"answer_tokens": number}
        elif "KV" in change.what:
            load = {"fp8_cache": True}
        else:
            continue
        followed = of(ask(served, limit, **load), runtime)
        assert (followed.total, followed.fits) == (change.total, change.fits)


def test_where_no_change_is_enough_all_are_taken_together(served: Servable) -> None:
    *alone, together = of(ask(served, 5.5), "vLLM").changes
    assert not any(change.fits for change in alone)
    assert together.what.startswith("together: weights in 4 bits, an FP8 KV cache, one page at once")
    assert together.fits
    *_, together = of(ask(served, 2), "vLLM").changes
    assert not together.fits


def test_nothing_is_advised_that_is_done_already(served: Servable) -> None:
    done = replace(served, stored=INT4, fp8_cache=True)
    changes = of(ask(done, 4, pages_at_once=1, answer_tokens=1024, page=(512, 512)), "vLLM").changes
    assert [change.what.split(" (")[0] for change in changes] == []
    assert ask(done, 24).runtimes[0].kv_cache_per_page == 17_024 * 98_304 // 2


def test_what_transformers_unpacks_saves_nothing_there(served: Servable) -> None:
    unpacked = replace(served, stored=INT4, keeps_packed=False)
    in_vllm, in_transformers = ask(unpacked, 24).runtimes
    assert (in_vllm.weights, in_transformers.weights) == (INT4, FULL)
