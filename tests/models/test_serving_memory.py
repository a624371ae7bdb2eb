"""The formulas for memory, held against what Transformers and PyTorch really allocate for a small model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch.profiler import ProfilerActivity, profile
from transformers.models.hunyuan_vl.modeling_hunyuan_vl import HunYuanVLTextModel, HunYuanVLVisionTransformer

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BadInputError
from hyocr_core.models.load import load_model
from hyocr_core.models.servable import open_servable
from hyocr_core.models.serving_memory import PROMPT_TOKENS, ServedLoad, Shapes
from hyocr_core.pages.page_size import page_size
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.prompts import DEFAULT_PROMPT
from hyocr_core.pages.samples import build_sample
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


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.shared_checkpoint(tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    return load_model(checkpoint, torch.device("cpu"))


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


def test_weights_are_exact(checkpoint: Path, model: Any) -> None:
    in_memory = {value.data_ptr(): value.nbytes for value in model.parameters()}
    served = open_servable(checkpoint)
    assert served.stored == served.unpacked == sum(in_memory.values())
    assert served.runtimes == ("vLLM", "Transformers")


def test_the_cache_is_exact(checkpoint: Path, model: Any) -> None:
    served = open_servable(checkpoint)
    token_ids = torch.randint(0, 256, (3, 50))
    with torch.no_grad():
        cache = model(input_ids=token_ids, use_cache=True).past_key_values
    allocated = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert 3 * served.shapes.cache(50, 2) == allocated


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


@pytest.mark.parametrize("size", [(64, 32), (500, 90), (90, 500), (1000, 1000)])
def test_a_page_has_the_tokens_that_the_processor_makes(size: tuple[int, int], checkpoint: Path) -> None:
    processor = load_processor(checkpoint)
    found = page_size(processor.image_processor, *size)
    image = Image.new("RGB", size)
    sample = build_sample(Record("page", None, None, lambda: image), processor, with_answer=False)
    inputs = sample.inputs
    assert found.patches == len(inputs["pixel_values"])
    assert found.tokens == int(inputs["mm_token_type_ids"].sum())
    assert found.pixels == tuple(16 * side for side in inputs["image_grid_thw"][0, 1:].tolist()[::-1])


def test_the_published_model() -> None:
    assert PUBLISHED.cache(1, 2) == 98_304
    # 65,536 patches of a page of 4096 x 4096 pixels.
    assert PUBLISHED.vision(65_536) == pytest.approx(1.78e9, rel=0.01)


def test_a_page_beyond_the_context_is_refused(checkpoint: Path) -> None:
    served = open_servable(checkpoint)
    assert served.tokens(ServedLoad(answer_tokens=10**6)) == served.shapes.context
    page = served.page(ServedLoad())
    assert served.tokens(ServedLoad(answer_tokens=100)) == page.tokens + PROMPT_TOKENS + 100
    served.image_processor.size = {"shortest_edge": 32 * 32, "longest_edge": 4096 * 4096}
    with pytest.raises(BadInputError, match=r"a page of 2480x3508 has 8692 image tokens, .* give a smaller page"):
        served.page(ServedLoad(page=(2480, 3508)))
    # One that nobody asked for is made smaller.
    assert served.page(ServedLoad()).tokens + PROMPT_TOKENS < served.shapes.context
    with pytest.raises(BadInputError, match="refuses it: absolute aspect ratio"):
        served.page(ServedLoad(page=(1, 1000)))
