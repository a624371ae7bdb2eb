"""Several formats in one checkpoint: written as config groups, read by names, patterns and classes."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hyocr_core import ConfigError, QuantizedNames
from hyocr_core.formats import (
    AwqFormat,
    CompressedFp8Format,
    Format,
    GptqFormat,
    IntQuantizedFormat,
    PackQuantizedFormat,
    checkpoint_config,
)
from hyocr_core.models.known_formats import stored_formats
from tests.formats.test_read import GPTQMODEL, LLM_COMPRESSOR, LLM_COMPRESSOR_FP8

UP, DOWN = "model.language_model.layers.0.mlp.up_proj", "model.language_model.layers.0.mlp.down_proj"
ON_DISK = "model.layers.0.mlp.down_proj"
NAMES = QuantizedNames((UP, DOWN), ("lm_head",))
FOUR, EIGHT = PackQuantizedFormat(4, 128, sym=True), PackQuantizedFormat(8, 64, sym=True)
INT8 = IntQuantizedFormat("channel", "dynamic")
FP8 = CompressedFp8Format("channel", "dynamic")
SHAPES = {ON_DISK: (256, 512), "model.layers.0.mlp.up_proj": (512, 256)}


def test_layers_alike_need_no_groups() -> None:
    for written in (FOUR, INT8, GptqFormat(4, 128, sym=True), AwqFormat(64, zero_point=True)):
        assert checkpoint_config({UP: written, DOWN: written}, NAMES) == written.quantization_config(NAMES)


@pytest.mark.parametrize(
    ("others", "kinds", "whole"),
    [
        ((FOUR, EIGHT), ["pack-quantized", "pack-quantized"], "pack-quantized"),
        ((FOUR, INT8), ["pack-quantized", "int-quantized"], "mixed-precision"),
        ((FP8, FOUR), ["float-quantized", "pack-quantized"], "mixed-precision"),
    ],
)
def test_layers_that_differ_are_groups_of_their_names(
    others: tuple[Format, Format], kinds: list[str], whole: str
) -> None:
    config = checkpoint_config(dict(zip((UP, DOWN), others, strict=True)), NAMES)
    groups = list(config["config_groups"].values())
    assert [group["format"] for group in groups] == kinds
    assert [group["targets"] for group in groups] == [[UP], [DOWN]]
    assert (config["format"], config["ignore"]) == (whole, ["lm_head"])
    stored = stored_formats(config)
    assert (stored.of(UP), stored.of(DOWN), stored.of(ON_DISK)) == (*others, others[1])
    assert stored.of("lm_head") is None
    assert stored.formats == others


def test_the_library_reads_the_groups() -> None:
    quantization = pytest.importorskip("compressed_tensors.quantization")
    config = checkpoint_config({UP: INT8, DOWN: FOUR}, NAMES)
    read = quantization.QuantizationConfig.model_validate(config)
    first, second = read.config_groups.values()
    assert (first.weights.num_bits, first.input_activations.strategy, first.format) == (8, "token", "int-quantized")
    assert (second.weights.group_size, second.input_activations, second.format) == (128, None, "pack-quantized")


def test_what_holds_for_all_layers_is_written_once() -> None:
    cached = CompressedFp8Format("channel", "dynamic", kv_cache=True)
    config = checkpoint_config({UP: FOUR, DOWN: cached}, NAMES)
    assert config["kv_cache_scheme"]["num_bits"] == 8
    assert stored_formats(config).of(DOWN) == cached
    with pytest.raises(ConfigError, match=f"^{UP}: kv_cache_scheme holds for all layers of compressed-tensors"):
        checkpoint_config({UP: FP8, DOWN: cached}, NAMES)


@pytest.mark.parametrize(
    ("others", "method"),
    [
        ((GptqFormat(4, 128, sym=True), GptqFormat(8, 128, sym=True)), "gptq"),
        ((FOUR, AwqFormat(128, zero_point=True)), "awq"),
    ],
)
def test_a_format_without_room_is_named_beside_one_that_has_it(others: tuple[Format, Format], method: str) -> None:
    with pytest.raises(ConfigError) as caught:
        checkpoint_config(dict(zip((UP, DOWN), others, strict=True)), NAMES)
    assert str(caught.value) == (
        f"format {method} has no room for layers with different options, such as {UP} ({others[0].in_words}) and "
        f"{DOWN} ({others[1].in_words}); use format: compressed-tensors"
    )


def grouped(*targets: list[str]) -> dict[str, Any]:
    """4 bits, then FP8, each for these targets."""
    config = copy.deepcopy(LLM_COMPRESSOR) | {"format": "mixed-precision"}
    first = config["config_groups"]["group_0"] | {"targets": targets[0]}
    second = copy.deepcopy(LLM_COMPRESSOR_FP8["config_groups"]["group_0"])  # type: ignore[index]
    second |= {"targets": targets[1], "format": "float-quantized"}
    return config | {"config_groups": {"group_0": first, "group_1": second}}


@pytest.mark.parametrize(
    ("targets", "up", "down"),
    [
        ((["Linear"], [DOWN]), FOUR, FP8),
        ((["Linear"], [ON_DISK]), FOUR, FP8),
        ((["Linear"], ["re:.*down_proj"]), FOUR, FP8),
        ((["re:.*mlp.*"], [UP]), FP8, FOUR),
        ((["re:.*up_proj", "re:.*down_proj"], ["Linear"]), FOUR, FOUR),
        ((["re:up_proj"], ["re:.*down"]), None, FP8),
        (([UP], ["lm_head"]), FOUR, None),
    ],
)
def test_a_name_comes_before_a_pattern_and_that_before_the_class(
    targets: tuple[list[str], list[str]], up: Format | None, down: Format | None
) -> None:
    stored = stored_formats(grouped(*targets))
    assert (stored.of(UP), stored.of(DOWN)) == (up, down)
    assert stored.of(ON_DISK) == down


def test_rules_of_gptqmodel() -> None:
    rules = {"-:.*layers\\.1\\.": {}, "+:.*down_proj": {"bits": 8, "group_size": 32}, ".*o_proj": {"desc_act": True}}
    stored = stored_formats(GPTQMODEL | {"dynamic": rules})
    assert stored.of(UP) == GptqFormat(4, 128, sym=True)
    assert stored.of(DOWN) == GptqFormat(8, 32, sym=True)
    assert stored.of("model.layers.0.self_attn.o_proj") == GptqFormat(4, 128, sym=True, desc_act=True)
    # The first pattern that matches holds.
    assert stored.of("model.layers.1.mlp.down_proj") is None


def test_runtimes_of_several_are_the_worst_of_each() -> None:
    by_names = stored_formats(checkpoint_config({UP: FOUR, DOWN: EIGHT}, NAMES))
    found = {runtime.name: runtime for runtime in by_names.runtimes(SHAPES)}
    assert [runtime.loads for runtime in found.values()] == ["no", "yes", "yes"]
    assert found["vLLM CPU"].why == "the CPU build has no kernel for 8-bit integers"
    zeros = stored_formats(checkpoint_config({UP: FOUR, DOWN: PackQuantizedFormat(4, 32, sym=False)}, NAMES))
    assert zeros.unpacking(SHAPES) == "as it loads"
    assert by_names.unpacking(SHAPES) == "on first use"
    # Transformers unpacks every layer by the first group.
    assert (zeros.runtimes(SHAPES)[-1].loads, by_names.runtimes(SHAPES)[-1].loads) == ("no", "yes")
    assert zeros.packages == ("compressed_tensors",)


@pytest.mark.parametrize("config", [grouped(["Linear"], [DOWN]), GPTQMODEL | {"dynamic": {".*down": {"bits": 8}}}])
def test_vllm_may_take_fused_layers_for_what_the_class_says(config: dict[str, Any]) -> None:
    *vllm, transformers = stored_formats(config).runtimes(SHAPES)
    assert {runtime.loads for runtime in vllm} <= {"unsure", "no"}
    assert "fused" in vllm[1].why
    assert transformers.loads == "yes"
