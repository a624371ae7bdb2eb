"""JSON from outside: what is taken, what is refused, and that there is no other way in."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from hyocr_core.errors import CheckpointError, OutputError
from hyocr_core.outside.json_text import DEEPEST, levels, parse_json, read_object
from tests.conftest import REPO


def nested(depth: int) -> Any:
    value: Any = 7
    for number in range(depth):
        value = {"a": value} if number % 2 else [value]
    return value


@pytest.mark.parametrize(
    "value", [{}, [], "漢字 🙂\n\0", 0, -0.0, 1e308, 5e-324, 10**300, True, None, {"": [{}]}, nested(DEEPEST)]
)
def test_it_reads_what_the_standard_allows(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_numbers_are_those_that_were_written() -> None:
    numbers = [0.1 + 0.2, 1 / 3, sys.float_info.min, sys.float_info.max, 2**53 + 1, -(10**30)]
    assert parse_json(json.dumps(numbers)) == numbers


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "EOF"),
        ("{", "EOF"),
        ("{} x", "trailing characters"),
        ("NaN", "expected value"),
        ('{"a": -Infinity}', "invalid number"),
        ('{"a": [1e999]}', "a number is too large"),
        ("9" * 5_000, "a number is too long"),
        ('"\\ud800"', "half a character"),
        ('{"\\udc00": 1}', "half a character"),
        (b'"\xff"', "not UTF-8"),
        (b'"\xed\xa0\x80"', "not UTF-8"),
        ("\ufeff{}", "expected value"),
        (json.dumps(nested(DEEPEST + 1)), "nested too deeply"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
    ],
)
def test_it_refuses_the_rest_in_a_few_words(text: str | bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 100


@pytest.mark.parametrize("text", ["[]", "7", '"a"', "null"])
def test_a_file_holds_an_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(OutputError, match=r"x\.json: must hold a JSON object, not "):
        read_object(path, OutputError)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    for made, reason in ((None, "No such file"), ("{", "EOF")):
        if made is not None:
            path.write_text(made)
        with pytest.raises(CheckpointError, match=rf"x\.json: cannot be read as JSON: {reason}"):
            read_object(path, CheckpointError)


def test_a_value_that_holds_itself_is_nested_too_deeply() -> None:
    value: list[Any] = []
    value += [value, {"a": value}]
    with pytest.raises(ValueError, match="nested too deeply"):
        list(levels(value))


def test_what_occurs_often_is_looked_at_once() -> None:
    value: Any = [1]
    for _ in range(DEEPEST - 1):
        value = [value] * 10
    assert sum(map(len, levels(value))) < 1_000


def test_there_is_no_other_way_in() -> None:
    """But for child processes, which import nothing of hyocr, for what this process or another rank of the run has just
    written, and for the whole part of an answer that breaks off, which only the parser itself finds."""
    own = {
        "checkpoint/journal.py": 1,
        "checkpoint/reader.py": 1,
        "evaluation/parts/json_answer.py": 1,
        "pages/rendering.py": 1,
        "pages/template_renderer.py": 1,
        "ranks/lifeline.py": 2,
        "ranks/ranks.py": 2,
        "runtimes/vllm_runner.py": 2,
        "verification/beside_weights.py": 2,
    }
    found: dict[str, int] = {}
    for path in (REPO / "hyocr_core").rglob("*.py"):
        name = path.relative_to(REPO / "hyocr_core").as_posix()
        calls = re.findall(r"\bjson\.loads?\(|(?<!parse_)\bfrom_json\(", path.read_text(encoding="utf-8"))
        if calls and not name.startswith("testing/"):
            found[name] = len(calls)
    assert found == own | {"outside/json_text.py": 1}
