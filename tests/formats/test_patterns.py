"""Patterns of a checkpoint are matched as `re` matches them, and for no longer than a moment."""

from __future__ import annotations

import re
from typing import Any

import pytest

from hyocr_core.errors import CheckpointError
from hyocr_core.formats import patterns
from hyocr_core.formats.ignored import Ignored
from hyocr_core.formats.patterns import begins, pattern_problem
from hyocr_core.formats.rules import Rule, first_match
from hyocr_core.formats.settings_read import name_list

NAME = "model.language_model.layers.10.self_attn.q_proj"
ENDLESS = [r"((\w|\.|[a-z])*)*\d\b!?$", r"(?:[a-p]|[^x-z]|\w)+[XYZ]$"]


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SECONDS", 0.25)
    patterns._bounded.cache_clear()
    begins.cache_clear()


def test_the_pattern_of_the_report_ends() -> None:
    assert not begins("(a+)+$", "a" * 100 + "b")


@pytest.mark.parametrize("pattern", ENDLESS)
def test_a_pattern_that_is_never_done_is_named(pattern: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        begins(pattern, NAME)
    assert str(caught.value).startswith(f"config.json: quantization_config: the pattern {pattern!r} is not done with ")
    assert caught.value.exit_code == 2


def test_all_names_share_the_time_of_a_pattern(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a pattern that is slow, but not too slow for a name, would take hours for all."""
    clock = iter(range(1000))
    monkeypatch.setattr("time.process_time", lambda: next(clock) / 16)
    with pytest.raises(CheckpointError, match="is not done with"):
        [begins("model", f"model.{number}") for number in range(1000)]
    assert next(clock) == 2 * 4, "two looks at the clock for each of four names"


@pytest.mark.parametrize("pattern", ENDLESS)
def test_a_pattern_that_was_given_up_stays_so(pattern: str) -> None:
    for name in (NAME, "lm_head", NAME, "lm_head"):
        with pytest.raises(CheckpointError, match="is not done with"):
            begins(pattern, name)


@pytest.mark.parametrize(
    "pattern",
    [
        r"model.*q_proj",
        r".*q_proj$",
        r"(?i)MODEL\.",
        r"layers",
        r"model\.(\w+)\.layers\.(1[0-9]|2)\.",
        r"(?:x)?m",
        r"model\.\w{2,20}\.",
        "",
    ],
)
def test_others_are_matched_as_before(pattern: str) -> None:
    assert pattern_problem(pattern) is None
    for name in (NAME, "lm_head", "vit.layers.3.mlp.fc1", ""):
        assert begins(pattern, name) == (re.match(pattern, name) is not None)


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("(", "missing ), unterminated subpattern at position 0"),
        (r"\p{L}", "bad escape"),
        ("(?R)", "unknown extension"),
        ("a" * 2001, "it has more than 2000 characters"),
        ("(" * 900 + "a" + ")" * 900, "maximum recursion depth"),
        ("((((a{1000}){1000}){1000}){1000})", "it repeats a part more than 1000 times"),
        ("((a{2,50}){50,}b){0,50}", "it repeats a part more than 1000 times"),
        ("a{99999999999}", "it repeats a part more than 1000 times"),
    ],
)
def test_what_is_no_pattern_or_too_much_of_one_is_refused_when_it_is_read(pattern: str, problem: str) -> None:
    with pytest.raises(CheckpointError, match=re.escape(problem)):
        name_list({"ignore": [f"re:{pattern}"]}, "ignore")


@pytest.mark.parametrize("rule", ["pattern", "exact", "substring"])
def test_every_way_to_leave_out_layers_is_bounded(rule: Any) -> None:
    entry = ENDLESS[0] if rule != "pattern" else f"re:{ENDLESS[0]}"
    with pytest.raises(CheckpointError, match="is not done with"):
        Ignored("ignore", (entry,), rule).by(NAME)


def test_targets_are_bounded() -> None:
    with pytest.raises(CheckpointError, match="is not done with"):
        first_match([Rule(f"re:{ENDLESS[0]}", None)], [NAME])
