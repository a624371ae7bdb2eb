"""Checkpoints beside `tiny`, and slow oracles of the error rates."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from tests.tiny import save_tiny


@pytest.fixture(scope="session")
def noisy(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(demo, tmp_path_factory.mktemp("noisy") / "model", noise=0.02)


@pytest.fixture(scope="session")
def by_rtn(tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`tiny` with a decoder of 4-bit weights, merely rounded to nearest, in the format gptq."""
    folder = tmp_path_factory.mktemp("rtn") / "out"
    quantize(RunConfig(model=str(tiny), output=folder, method="rtn", options={"mse": False}))
    return folder


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
