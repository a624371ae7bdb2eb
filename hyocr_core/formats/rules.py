"""Which linears a part of a quantization_config is about. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hyocr_core.formats.patterns import begins

if TYPE_CHECKING:
    from hyocr_core.formats.base import Format

EVERY = "Linear"
"""The target that means every linear: their class."""
PATTERN = "re:"


@dataclass(frozen=True)
class Rule:
    """target: the name of a linear, a regular expression after `re:` that its name begins with, or `Linear`.

    format: what stores such linears; None leaves them unquantized.
    """

    target: str
    format: Format | None


def first_match(rules: Iterable[Rule], names: Collection[str]) -> Rule | None:
    """The rule that holds for a linear with these names: one by name before a pattern before the class."""
    rules = tuple(rules)
    for matches in (_by_name, _by_pattern, _by_class):
        for rule in rules:
            if matches(rule.target, names):
                return rule
    return None


def _by_name(target: str, names: Collection[str]) -> bool:
    return target in names


def _by_pattern(target: str, names: Collection[str]) -> bool:
    pattern = target.removeprefix(PATTERN)
    return pattern != target and any(begins(pattern, name) for name in names)


def _by_class(target: str, _names: Collection[str]) -> bool:
    return target == EVERY
