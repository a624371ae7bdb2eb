"""What serving a small model takes: weights, cache and pages, held against the model and its processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BadInputError
from hyocr_core.models.load import load_model
from hyocr_core.models.servable import open_servable
from hyocr_core.models.serving_memory import PROMPT_TOKENS, ServedLoad
from hyocr_core.pages.page_size import page_size
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.testing import tiny


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.shared_checkpoint(tmp_path_factory.mktemp("memory"))


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    return load_model(checkpoint, torch.device("cpu"))


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
