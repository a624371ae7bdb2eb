"""Which rule gets which linear, and bad recipes: one line each, before any weight is read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from hyocr_core.cli.main import main
from hyocr_core.progress import Silent
from hyocr_core.run.dry_run import plan_run
from hyocr_core.run.job import Job, prepare
from hyocr_core.settings.run_file import merge_run_config

pytestmark = pytest.mark.needs_methods

Rule = dict[str, Any]
GPTQ: Rule = {"match": "*", "method": "gptq"}
VISION: Rule = {"match": "vit", "method": "fp8_dynamic"}


def prepared(demo: Path, output: Path, calib: str, **settings: Any) -> Job:
    given = {"model": str(demo), "output": output, "calib": calib, "num_samples": 4, "device": "cpu"}
    return prepare(merge_run_config(None, given | settings, ()).run, Silent())


def test_each_linear_goes_to_the_first_rule_that_matches(demo: Path, calib: str, tmp_path: Path) -> None:
    kept = {"match": ["model.layers.3", "model.vision_tower.patch_merger"], "method": "none"}
    eight = {"match": "*.down_proj", "method": "gptq", "options": {"bits": 8}}
    job = prepared(demo, tmp_path / "out", calib, recipe=[kept, VISION, eight, GPTQ])
    main, vision = job.shares
    assert (main.name, vision.name) == ("gptq", "fp8")
    assert set(vision.options) == {name for name in job.plan.quantized if name.startswith("vit.")}
    bits = {name: config.bits for name, config in main.options.items()}  # type: ignore[attr-defined]
    assert {name for name, found in bits.items() if found == 8} == {f"model.layers.{i}.mlp.down_proj" for i in range(3)}
    assert "model.layers.3.mlp.up_proj" in job.plan.ignored
    assert job.left["vit.perceive.mlp"] == "kept by recipe: rule 1"
    # What differs shares a format that has room for it.
    assert {config.format for config in job.options.values()} == {"compressed-tensors"}
    assert job.quantization_config["format"] == "mixed-precision"
    assert job.quantization_config["ignore"][-1] == "lm_head"


def test_a_recipe_of_one_method_is_that_method(demo: Path, calib: str, tmp_path: Path) -> None:
    alone = prepared(demo, tmp_path / "out", calib, method="gptq")
    recipe = prepared(demo, tmp_path / "out", calib, recipe=[{"match": "model.layers", "method": "gptq"}])
    assert recipe.quantization_config == alone.quantization_config
    assert recipe.options == alone.options


def test_what_runtimes_misread_stays_as_it_is(demo: Path, calib: str, tmp_path: Path) -> None:
    integers = {"match": "vit", "method": "gptq", "options": {"bits": 8, "group_size": -1}}
    job = prepared(demo, tmp_path / "out", calib, recipe=[integers, GPTQ])
    assert job.left == {"vit.perceive.mlp": "runtimes misread it in format compressed-tensors"}


def test_vision_is_short_for_a_rule(demo: Path, calib: str, tmp_path: Path) -> None:
    given = {"method": "gptq", "vision": "fp8_dynamic"}
    options = {"ignore": ["vit.perceive", "model.layers.0"]}
    short = prepared(demo, tmp_path / "out", calib, **given, options=options)
    kept = {"match": options["ignore"], "method": "none"}
    assert (
        short.quantization_config
        == prepared(demo, tmp_path / "out", calib, recipe=[kept, VISION, GPTQ]).quantization_config
    )
    overridden = prepared(demo, tmp_path / "out", calib, **given, overrides={"*.down_proj": {"group_size": 32}})
    assert len(overridden.quantization_config["config_groups"]) == 3


def test_a_dry_run_says_what_becomes_of_each(demo: Path, calib: str, tmp_path: Path) -> None:
    given = {"model": str(demo), "output": tmp_path / "out", "calib": calib, "num_samples": 2, "device": "cpu"}
    kept = {"match": "*.o_proj", "method": "none"}
    plan = plan_run(merge_run_config(None, given | {"recipe": [kept, VISION, GPTQ]}, ()).run)
    fates = {(row.part, row.stored or row.left) for row in plan.linears}
    assert ("decoder o", "kept by recipe: rule 1") in fates
    assert ("decoder down", "int4, groups of 128, symmetric") in fates
    assert ("vision merger", "fp8, scale per output channel, dynamic activations") in fates
    assert ("head", "shares the embedding's weight") in fates
    assert plan.method == "gptq + fp8"
    assert [record.name for record in plan.further] == ["fp8"]
    assert {runtime.name: runtime.loads for runtime in plan.runtimes} == {
        "vLLM CPU": "yes",
        "vLLM CUDA": "yes",
        "Transformers": "yes",
    }


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        (
            [{"match": "*.nonsense", "method": "gptq"}, GPTQ],
            "rule 1: '*.nonsense' matches no linear of a block",
        ),
        ([{"match": ["vit", "vitt"], "method": "fp8"}, GPTQ], "recipe: rule 1: 'vitt' matches no linear of a block"),
        (
            [{"match": ["*.embed_tokens", "lm_head"], "method": "gptq"}, GPTQ],
            "'*.embed_tokens' matches no linear of a block; neither vLLM nor Transformers reads embedding and head",
        ),
        ([GPTQ, VISION], "recipe: rule 2: the rules before it take all that 'vit' matches; move it up"),
        (
            [{"match": "*.q_proj", "method": "gptq", "options": {"bits": 8}}, GPTQ],
            "rule 2 splits vit.layers.0.self_attn.q_proj and vit.layers.0.self_attn.k_proj, which share an input",
        ),
        ([{"match": "*.gate_proj", "method": "none"}, GPTQ], "recipe: rule 2 splits model.layers.0.mlp.gate_proj and"),
        (
            [{"match": "model.*.k_proj", "method": "fp8"}],
            "one by no rule, one by recipe: rule 1; match both by",
        ),
        (
            [VISION, {"match": "*.down_proj", "method": "awq"}, GPTQ],
            "recipe: rule 2: awq moves scales from model.layers.0.mlp.down_proj into model.layers.0.mlp.up_proj, which "
            "recipe: rule 3 gives to gptq",
        ),
        (
            [VISION, {"match": "model", "method": "gptq", "options": {"format": "gptq"}}],
            "gptq writes gptq, which has no room for layers of other methods or options; use its option format: ",
        ),
        ([VISION, {"match": "*", "method": "fp8", "options": {"format": "fp8"}}], "has no room for layers"),
        ([{"match": "*", "method": "gptq", "options": {"bitz": 8}}], "recipe: rule 1: options: bitz: unknown key"),
        ([{"match": "*", "method": "gptqq"}], "gptqq"),
    ],
)
def test_a_bad_recipe_is_one_line(rules: list[Rule], said: str, demo: Path, calib: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps(rules))
    command = ["quant", "--recipe", str(file), "--model", str(demo), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, [*command, "--calib", calib])
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--recipe", "nowhere.yaml"], "nowhere.yaml: there is no such file, and no recipe of that name: balanced"),
        (["--method", "gptq", "--recipe", "FILE"], "method has no place beside recipe, whose rules say it"),
        (["--vision", "fp8", "--recipe", "FILE"], "vision has no place beside recipe"),
        (["--recipe", "FILE", "-o", "bits=8"], "options has no place beside recipe"),
        ([], "name a method, or a recipe"),
        (["--method", "gptq", "--vision", "fp8", "-o", "quant_vit=true"], "options.quant_vit contradicts vision: fp8"),
    ],
)
def test_what_contradicts_a_recipe_is_refused(arguments: list[str], said: str, demo: Path, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps([VISION, GPTQ]))
    given = [str(file) if argument == "FILE" else argument for argument in arguments]
    result = CliRunner().invoke(main, ["quant", *given, "--model", str(demo), "--output", str(tmp_path / "out")])
    assert result.exit_code == 2, result.output
    assert said in result.stderr
    assert result.stderr.strip().count("\n") == 0
