"""Recipes: reading, matching, and errors of one line."""

from __future__ import annotations

from pathlib import Path

import pytest

from hyocr_core.errors import ConfigError
from hyocr_core.settings.recipe import NAMED, matching, parse_rules, read_recipe, recipe_text

RECIPE = """\
- {match: "vit.*", method: fp8, options: {activation_scheme: dynamic}}
- match: [model.layers.*.mlp.down_proj, "*.o_proj"]
  method: gptq
  options: {bits: 8}
- {match: model.layers.0, method: none}
- {match: "*", method: gptq}
"""


def _written(folder: Path, text: str) -> Path:
    path = folder / "recipe.yaml"
    path.write_text(text)
    return path


def test_the_first_rule_that_matches_one_of_the_names_holds(tmp_path: Path) -> None:
    rules = read_recipe(_written(tmp_path, RECIPE))
    vision, eight, kept, rest = rules
    assert matching(rules, "vit.layers.0.self_attn.q_proj", "model.vision_tower.layers.0.self_attn.q_proj") is vision
    assert matching(rules, "model.layers.0.mlp.down_proj") is eight
    assert matching(rules, "model.layers.3.self_attn.o_proj") is eight
    assert matching(rules, "model.layers.0.mlp.up_proj") is kept
    assert matching(rules, "model.layers.10.mlp.up_proj") is rest
    assert matching(rules[:1], "model.layers.10.mlp.up_proj") is None
    assert not kept.quantizes
    assert eight.options == {"bits": 8}


def test_a_recipe_is_written_as_it_is_read(tmp_path: Path) -> None:
    rules = read_recipe(_written(tmp_path, RECIPE))
    assert read_recipe(_written(tmp_path, recipe_text(rules))) == rules
    assert recipe_text(rules).splitlines()[-1] == '- {match: "*", method: "gptq"}'


def test_angelslims_names_of_methods_are_understood() -> None:
    [rule] = parse_rules([{"match": "vit", "method": "fp8_dynamic"}], "recipe")
    assert (rule.method, rule.options) == ("fp8", {"activation_scheme": "dynamic"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("match: 1", "a recipe is a list of rules"),
        ("[]", "a recipe is a list of rules"),
        ("- gptq", "rule 1: must be a mapping with match and method, not 'gptq'"),
        ("- {match: '*', method: none}", "none of its rules quantizes anything"),
        ("- {match: '*'}", "rule 1: method: is missing"),
        ("- {match: '*', method: gptq}\n- {match: [], method: gptq}", "rule 2: match"),
        ("- {match: '*', metod: gptq}", "metod: unknown key; did you mean method?"),
        ("- {match: '*', method: none, options: {bits: 8}}", "rule 1: method none has no options"),
        ("- {match: '*', method: gptq, options: {quant_vit: true}}", "rule 1: options.quant_vit has no place"),
        ("- {match: a, method: fp8_static, options: {activation_scheme: dynamic}}", "contradicts method: fp8_static"),
        ("- {match: *, method: gptq}", "line 1"),
    ],
)
def test_a_bad_recipe_is_one_line_that_names_file_and_rule(tmp_path: Path, text: str, message: str) -> None:
    path = _written(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        read_recipe(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there_names_its_file(tmp_path: Path) -> None:
    known = "no recipe of that name: balanced, safest, smallest"
    with pytest.raises(ConfigError, match=rf"nothing\.yaml: there is no such file, and {known}"):
        read_recipe(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        read_recipe(tmp_path)


@pytest.mark.parametrize("name", NAMED)
def test_named_recipes_are_read(name: str) -> None:
    assert {rule.method for rule in read_recipe(name)} <= {"gptq", "fp8", "rtn"}
