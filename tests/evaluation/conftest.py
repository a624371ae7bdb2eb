"""Tiny checkpoints with random float32 weights, pages of two sizes, and slow oracles of the error rates."""

from __future__ import annotations

import json
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import HunYuanVLConfig, HunYuanVLForConditionalGeneration

from hyocr_core.calibration.records import Record
from hyocr_core.config import RunConfig
from hyocr_core.pipeline import quantize

STOP = list(range(0, 384, 6))  # so many tokens end an answer that answers of a random model differ in length


def save_tiny(demo: Path, folder: Path, *, noise: float = 0.0) -> Path:
    """Write a random model with the demo's tokenizer and processor; `noise` moves its decoder's weights a little."""
    shutil.copytree(demo, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config: Any = HunYuanVLConfig.from_pretrained(demo)
    config.dtype = torch.float32
    config.text_config.num_hidden_layers = 2
    config.text_config.initializer_range = config.vision_config.initializer_range = 0.2
    config.vision_config.num_hidden_layers = 1
    torch.manual_seed(0)
    model: Any = HunYuanVLForConditionalGeneration(config)
    model.float()
    with torch.no_grad():
        for parameter in model.model.language_model.layers.parameters():
            parameter += noise * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": STOP, "max_new_tokens": 12}))
    return folder


@pytest.fixture(scope="session")
def tiny(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(demo, tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture(scope="session")
def noisy(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(demo, tmp_path_factory.mktemp("noisy") / "model", noise=0.02)


@pytest.fixture(scope="session")
def by_rtn(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` with a decoder of 4-bit weights, merely rounded to nearest, in the format gptq."""
    folder = tmp_path_factory.mktemp("rtn") / "out"
    quantize(RunConfig(model=str(tiny), output=folder, method="rtn", options={"mse": False}))
    return folder


def page(index: int, answer: str | None = "abc def") -> Record:
    """Random pixels; every third page is narrower."""
    torch.manual_seed(index)
    width = 128 if index % 3 == 0 else 256
    pixels = (torch.rand(32, width, 3) * 255).to(torch.uint8).numpy()
    return Record(f"page-{index}", None, answer, lambda: Image.fromarray(pixels))


@pytest.fixture
def pages() -> Callable[..., list[Record]]:
    def make(count: int, answer: str | None = "abc def") -> list[Record]:
        return [page(index, answer) for index in range(count)]

    return make


def as_compared(text: str) -> str:
    text = unicodedata.normalize("NFC", text)
    while text and text[-1].isspace():
        text = text[:-1]
    return text


def _slow_distance(left: Sequence[str], right: Sequence[str]) -> int:
    """Levenshtein's definition, recursively; shares nothing with the code under test."""
    memory: dict[tuple[int, int], int] = {}

    def distance(i: int, j: int) -> int:
        if i == 0 or j == 0:
            return i + j
        if (i, j) not in memory:
            substitution = distance(i - 1, j - 1) + (left[i - 1] != right[j - 1])
            memory[i, j] = min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, substitution)
        return memory[i, j]

    return distance(len(left), len(right))


@pytest.fixture(scope="session")
def slow_distance() -> Callable[[str, str], int]:
    """In characters, of texts as they are compared."""
    return lambda left, right: _slow_distance(as_compared(left), as_compared(right))


def slow_words(text: str) -> list[str]:
    """Words by Unicode's own names of the characters."""
    spaced = ""
    for character in text:
        name = unicodedata.name(character, "")
        alone = name.startswith(("CJK UNIFIED", "HIRAGANA", "KATAKANA", "IDEOGRAPHIC", "FULLWIDTH", "LEFT CORNER"))
        spaced += f" {character} " if alone else character
    return spaced.split()


@pytest.fixture(scope="session")
def slow_word_distance() -> Callable[[str, str], int]:
    """In words, of texts as they are compared."""
    return lambda left, right: _slow_distance(slow_words(as_compared(left)), slow_words(as_compared(right)))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the user that is the test's own."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    return folder
