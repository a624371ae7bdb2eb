"""What is quantized and what is not, from names alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.errors import ConfigError
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.run.plan import make_plan


@pytest.fixture(scope="module")
def model(demo: Path) -> HunYuanVL:
    return HunYuanVL(CheckpointReader(demo), torch.device("cpu"))


def test_without_patterns_every_decoder_linear_is_quantized(model: HunYuanVL) -> None:
    plan = make_plan(model, ())
    assert len(plan.quantized) == 7 * len(model.decoder_blocks)
    assert all(name.startswith("model.layers.") for name in plan.quantized)
    assert set(plan.quantized) | set(plan.ignored) == set(model.memory_names)
    assert "lm_head" in plan.names.ignored
    assert "model.vision_tower.patch_merger.mlp" in plan.names.ignored
    assert all(name.startswith("model.language_model.layers.") for name in plan.names.quantized)


@pytest.mark.parametrize(
    ("pattern", "left_out"),
    [
        ("model.layers.2.mlp.down_proj", {"model.layers.2.mlp.down_proj"}),
        ("model.language_model.layers.2.mlp.down_proj", {"model.layers.2.mlp.down_proj"}),
        ("*.1.self_attn.o_proj", {"model.layers.1.self_attn.o_proj"}),
        ("model.layers.0.mlp", {f"model.layers.0.mlp.{part}_proj" for part in ("gate", "up", "down")}),
        ("lm_head", set()),
    ],
)
def test_patterns_are_names_parents_or_globs_of_either_naming(
    model: HunYuanVL, pattern: str, left_out: set[str]
) -> None:
    everything = set(make_plan(model, ()).quantized)
    assert everything - set(make_plan(model, (pattern,)).quantized) == left_out


def test_a_pattern_that_matches_nothing_is_refused(model: HunYuanVL) -> None:
    with pytest.raises(ConfigError, match=r"'model.layers.0.mlp.dwon_proj' matches no linear layer"):
        make_plan(model, ("model.layers.0.mlp.dwon_proj",))


def test_layers_that_runtimes_fuse_cannot_be_split(model: HunYuanVL) -> None:
    with pytest.raises(ConfigError, match=r"k_proj must be ignored together with .*q_proj, .*v_proj"):
        make_plan(model, ("model.layers.0.self_attn.k_proj",))


def test_nothing_left_to_quantize_is_refused(model: HunYuanVL) -> None:
    with pytest.raises(ConfigError, match="no layer is left"):
        make_plan(model, ("model.layers",))


def test_the_outer_blocks_are_kept_on_request(model: HunYuanVL) -> None:
    inner = {name for name in make_plan(model, ()).quantized if name.split(".")[2] in "12"}
    assert set(make_plan(model, (), keep_ends=1).quantized) == inner
    with pytest.raises(ConfigError, match="keep_ends: 2 at either end leave none of the decoder's 4 blocks"):
        make_plan(model, (), keep_ends=2)


def test_the_vision_tower_is_quantized_on_request(model: HunYuanVL) -> None:
    plan = make_plan(model, (), quant_vit=True)
    assert plan.names.ignored == ("lm_head",)
    assert list(plan.quantized)[-1] == "model.layers.3.mlp.down_proj"
    assert "vit.perceive.mlp" in plan.quantized


def test_what_runtimes_misread_is_left_out(model: HunYuanVL) -> None:
    merger = "model.vision_tower.patch_merger.mlp"
    plan = make_plan(model, (), quant_vit=True, misread=(merger,))
    assert plan.names.ignored == (merger, "lm_head")
    assert make_plan(model, (), misread=(merger,)) == make_plan(model, ())
