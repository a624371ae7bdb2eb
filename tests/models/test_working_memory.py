"""The formulas for memory, held against what Transformers and PyTorch really allocate for a small model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers.models.hunyuan_vl.modeling_hunyuan_vl import HunYuanVLTextModel, HunYuanVLVisionTransformer

from hyocr_core.models.working_memory import Shapes
from hyocr_core.pages.prompts import DEFAULT_PROMPT
from hyocr_core.testing import layout, tiny

PUBLISHED = Shapes(
    layers=24,
    hidden=1024,
    intermediate=3584,
    head=128,
    queries=2048,
    keys=1024,
    vocabulary=120818,
    context=131072,
    vision_hidden=1152,
    vision_intermediate=4304,
    patch=16,
    itemsize=2,
)


def peak(work: Callable[[], object]) -> int:
    """The most bytes that PyTorch has allocated at once on the CPU, of those that `work` allocates."""
    with torch.no_grad(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        kept = work()
    del kept
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    most = now = 0
    for event in events:
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.fixture(scope="module")
def config() -> Any:
    """Blocks of half the published widths."""
    vision = {**tiny.VISION, "hidden_size": 576, "intermediate_size": 2152, "num_attention_heads": 8}
    text = {**tiny.TEXT, "hidden_size": 512, "intermediate_size": 1792, "num_attention_heads": 8}
    text |= {"num_key_value_heads": 4, "head_dim": 128}
    found: Any = layout.build_config(layout.build_tokenizer(DEFAULT_PROMPT), text, vision)
    for part in (found.vision_config, found.text_config):
        part._attn_implementation = "sdpa"
    return found


def test_the_vision_tower_takes_what_pytorch_allocates(config: Any) -> None:
    rows, columns = 32, 40
    shapes = Shapes.of(config, 2)
    tower: Any = HunYuanVLVisionTransformer(config.vision_config)
    tower.to(torch.bfloat16).eval()

    def see() -> object:
        pixels = torch.rand(rows * columns, 3 * shapes.patch**2)
        return tower(pixels, torch.tensor([[1, rows, columns]]))

    assert peak(see) == pytest.approx(shapes.vision(rows * columns), rel=0.03)


@pytest.mark.parametrize("pages", [1, 3])
def test_the_decoder_takes_what_pytorch_allocates(pages: int, config: Any) -> None:
    shapes, tokens = Shapes.of(config, 2), 200
    decoder: Any = HunYuanVLTextModel(config.text_config)
    decoder.to(torch.bfloat16).eval()

    def read() -> object:
        embeds = torch.randn(pages, tokens, shapes.hidden).to(torch.bfloat16)
        return decoder(inputs_embeds=embeds, position_ids=torch.arange(tokens).expand(4, pages, tokens), use_cache=True)

    found = peak(read) - pages * shapes.cache(tokens, 2)
    assert found == pytest.approx(shapes.decoder(pages * tokens, 0), rel=0.05)


def test_the_published_model() -> None:
    assert PUBLISHED.cache(1, 2) == 98_304
    # 65,536 patches of a page of 4096 x 4096 pixels.
    assert PUBLISHED.vision(65_536) == pytest.approx(1.78e9, rel=0.01)
