"""A recipe: which method, with which options, quantizes which linears; several of them share one checkpoint."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Protocol, Self, TypeAlias, TypeVar

from pydantic import BeforeValidator, Field, model_validator

from hyocr_core.contract.config import FrozenModel, parse_config, show
from hyocr_core.errors import ConfigError
from hyocr_core.outside.home import expanded
from hyocr_core.settings.angelslim import our_method
from hyocr_core.settings.yaml_file import read_yaml

NONE = "none"
"""The method of a rule whose layers stay as they are."""

NAMED: Mapping[str, Path] = {
    path.stem: path for path in sorted(Path(__file__).with_name("recipes").glob("*.yaml"), key=lambda path: path.stem)
}
"""Recipes that come with hyocr, by name; docs/recipes.md says what was measured of them."""

OF_RULES = ("ignore", "keep_ends", "quant_vit")
"""Options of methods that a rule has no use for: what they say, rules say."""


def _several(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Patterns = Annotated[tuple[Annotated[str, Field(min_length=1)], ...], Field(min_length=1), BeforeValidator(_several)]


class RecipeRule(FrozenModel):
    """What becomes of the linears that it matches and no rule before it does."""

    match: Patterns = Field(
        description="names or globs of linears, or of what holds them, on-disk or in-memory; one, or a list"
    )
    method: str = Field(min_length=1, description="name of a method, or distribution:name; none keeps them")
    options: dict[str, Any] = Field(default_factory=dict, description="the method's own options")

    @property
    def quantizes(self) -> bool:
        return self.method != NONE

    @model_validator(mode="before")
    @classmethod
    def _name_method(cls, data: Any) -> Any:
        if not isinstance(data, Mapping) or not isinstance(data.get("method"), str):
            return data
        method, fixed = our_method(data["method"])
        options = data.get("options") or {}
        if not isinstance(options, Mapping):
            return data
        for key, value in fixed.items():
            if options.get(key, value) != value:
                raise ValueError(f"options.{key} = {show(options[key])} contradicts method: {data['method']}")
        return {**data, "method": method, "options": {**options, **fixed}}

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if not self.quantizes and self.options:
            raise ValueError(f"method {NONE} has no options")
        for key in OF_RULES:
            if key in self.options:
                raise ValueError(
                    f"options.{key} has no place in a recipe: its rules say what is quantized; use method: {NONE}"
                )
        return self

    def holds_for(self, *names: str) -> bool:
        """Whether it matches a linear with these names, on disk and in memory."""
        return any(matches(pattern, name) for pattern in self.match for name in names)


def matches(pattern: str, name: str) -> bool:
    """Whether a name or glob means this module, or a parent of it."""
    return fnmatchcase(name, pattern) or fnmatchcase(name, f"{pattern}.*")


class Matching(Protocol):
    """A rule, or what is made of it."""

    def holds_for(self, *names: str) -> bool:
        """As RecipeRule has it."""


Matched = TypeVar("Matched", bound=Matching)

Rules: TypeAlias = tuple[RecipeRule, ...]


def _as_rules(value: Any) -> Any:
    if isinstance(value, str | Path):
        return read_recipe(value)
    if isinstance(value, list | tuple) and any(isinstance(rule, RecipeRule) for rule in value):
        return value
    return parse_rules(list(value) if isinstance(value, tuple) else value, "its rules")


Recipe = Annotated[Rules, BeforeValidator(_as_rules)]
"""Rules in their order; also the file that holds them."""


def read_recipe(name: str | Path) -> Rules:
    """Read a recipe of NAMED, or that in a YAML file.

    Raises ConfigError: one line that names the file, the rule and the key.
    """
    path = NAMED.get(str(name)) or expanded(Path(name))
    if not path.exists():
        raise ConfigError(f"{name}: there is no such file, and no recipe of that name: {', '.join(NAMED)}")
    return parse_rules(read_yaml(path), str(name))


def parse_rules(data: Any, where: str) -> Rules:
    """Make rules of a list of mappings; raises ConfigError: one line that begins with `where` and names the rule."""
    if not isinstance(data, list) or not data:
        raise ConfigError(
            f"{where}: a recipe is a list of rules, such as - {{match: '*', method: gptq}}, not {show(data)}"
        )
    rules = tuple(_parse_rule(rule, f"{where}: rule {number}") for number, rule in enumerate(data, 1))
    if not any(rule.quantizes for rule in rules):
        raise ConfigError(f"{where}: none of its rules quantizes anything")
    return rules


def recipe_text(rules: Iterable[RecipeRule]) -> str:
    """The YAML file of a recipe, a line for each rule."""
    return "".join(f"- {{{_fields(rule)}}}\n" for rule in rules)


def matching(rules: Iterable[Matched], *names: str) -> Matched | None:
    """The rule that holds for a linear with these names, on disk and in memory: the first that matches."""
    return next((rule for rule in rules if rule.holds_for(*names)), None)


def _parse_rule(data: Any, where: str) -> RecipeRule:
    if not isinstance(data, Mapping):
        raise ConfigError(f"{where}: must be a mapping with match and method, not {show(data)}")
    return parse_config(RecipeRule, data, where)


def _fields(rule: RecipeRule) -> str:
    match = rule.match[0] if len(rule.match) == 1 else list(rule.match)
    fields = {"match": match, "method": rule.method} | ({"options": rule.options} if rule.options else {})
    # JSON is YAML, and quotes what YAML would take for something else.
    return ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in fields.items())
