"""Blocks of both towers: the same numbers as the whole model, and smoothing that leaves their outputs as they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.contract.types import Batch, Block, Smoothing
from hyocr_core.errors import RunError
from hyocr_core.kit.smoothing import exact_output, fold
from hyocr_core.models.hunyuan_vl import Embedded, HunYuanVL
from hyocr_core.models.load import load_model
from hyocr_core.models.wiring import Place
from hyocr_core.pages.older_transformers import one_tensor
from hyocr_core.pages.processor import load_processor

CPU = torch.device("cpu")
QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")


@pytest.fixture(scope="module")
def model(demo: Path) -> HunYuanVL:
    return HunYuanVL(CheckpointReader(demo), CPU)


@pytest.fixture(scope="module")
def inputs(demo: Path) -> dict[str, Tensor]:
    """A prompt with two images of different sizes."""
    images = [Image.radial_gradient("L").resize(size).convert("RGB") for size in ((256, 32), (128, 64))]
    content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": "Read this."}]
    messages = [{"role": "user", "content": content}]
    processor = load_processor(demo)
    return dict(
        processor.apply_chat_template(
            messages, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
    )


@torch.no_grad()
def vision_batches(model: HunYuanVL, inputs: dict[str, Tensor]) -> Iterator[tuple[Place, Block, Batch]]:
    """Every block of the vision tower in memory, with what it reads."""
    with model.patch_embedding():
        state = model.embed_patches(inputs)
    for index, place in enumerate(model.vision_blocks):
        with model.block(place, index, model.linears) as block:
            batch = model.vision_batch("x", state)
            output = block.run(batch)
            yield place, block, batch
        state = Embedded(output, state.places)


def decoder_batch(model: HunYuanVL, inputs: dict[str, Tensor]) -> Batch:
    with model.front():
        return model.batch("x", model.embed(inputs))


def test_vision_blocks_one_by_one_give_the_features_of_the_whole_tower(
    demo: Path, model: HunYuanVL, inputs: dict[str, Tensor]
) -> None:
    whole = load_model(demo, CPU)
    with torch.no_grad():
        image = whole.model.get_image_features(inputs["pixel_values"], inputs["image_grid_thw"])
        *_, (_, merger, batch) = vision_batches(model, inputs)
        assert merger.name == "vit.perceive"
    with model.block(model.vision_blocks[-1], 0, ()) as block, torch.no_grad():
        features = block.run(batch)[0]
    assert torch.equal(features, one_tensor(image.pooler_output))
    with model.front():
        assert torch.equal(model.embed(inputs).hidden_states, model.embed(inputs, features).hidden_states)


def test_names_on_disk_and_groups_of_the_vision_tower(model: HunYuanVL) -> None:
    with model.block(model.vision_blocks[0], 0, model.linears) as block:
        assert block.name == "vit.layers.0"
        assert list(block.layers)[-2:] == ["vit.layers.0.mlp.dense_h_to_4h", "vit.layers.0.mlp.dense_4h_to_h"]
        assert [len(group) for group in block.groups] == [3, 1, 1, 1]
        assert not block.cached


def scales_for(smoothing: Smoothing, seed: int) -> Tensor:
    weight = smoothing.source.get_parameter("weight")
    return torch.rand(len(weight), generator=torch.Generator().manual_seed(seed)) * 3 + 0.25


def assert_folding_keeps(block: Block, batch: Batch) -> None:
    block.module.float()
    before = exact_output(block, batch)
    for seed, smoothing in enumerate(block.smoothing):
        weights = {name: block.layers[name].weight.clone() for name in smoothing.targets}
        with torch.no_grad():
            fold(block, smoothing, scales_for(smoothing, seed))
        assert not any(torch.equal(weights[name], block.layers[name].weight) for name in smoothing.targets)
        assert (exact_output(block, batch) - before).norm() < 1e-3 * before.norm(), smoothing.name
    block.module.to(torch.bfloat16)


def test_folding_keeps_the_output_of_a_decoder_block(model: HunYuanVL, inputs: dict[str, Tensor]) -> None:
    batch = decoder_batch(model, inputs)
    with model.block(model.decoder_blocks[1], 1, model.linears) as block:
        assert [(s.name, len(s.targets)) for s in block.smoothing] == [
            ("model.layers.1.input_layernorm", 3),
            ("model.layers.1.self_attn.v_proj", 1),
            ("model.layers.1.post_attention_layernorm", 2),
            ("model.layers.1.mlp.up_proj", 1),
        ]
        assert_folding_keeps(block, batch)


def test_folding_keeps_the_output_of_a_vision_block(model: HunYuanVL, inputs: dict[str, Tensor]) -> None:
    _, _, batch = next(iter(vision_batches(model, inputs)))
    with model.block(model.vision_blocks[0], 0, model.linears) as block:
        assert [s.name.removeprefix("vit.layers.0.") for s in block.smoothing] == [
            "input_layernorm",
            "self_attn.v_proj",
            "post_attention_layernorm",
        ]
        assert_folding_keeps(block, batch)


def test_query_heads_share_the_channels_of_their_key_value_head(model: HunYuanVL) -> None:
    config = model.config.text_config
    heads, kv_heads, size = config.num_attention_heads, config.num_key_value_heads, config.head_dim
    assert heads > kv_heads
    with model.block(model.decoder_blocks[0], 0, model.linears) as block:
        channels = block.smoothing[1].channels.tolist()
    # As repeat_kv lays them out: query head h reads key-value head h // (heads / kv_heads).
    assert channels == [h * kv_heads // heads * size + d for h in range(heads) for d in range(size)]


@pytest.mark.parametrize(
    ("ignored", "left"),
    [
        (("model.layers.0.mlp.down_proj",), ["input_layernorm", "self_attn.v_proj", "post_attention_layernorm"]),
        # v_proj is the source for o_proj: what is ignored is not changed either.
        (tuple(f"model.layers.0.{part}" for part in QKV), ["post_attention_layernorm", "mlp.up_proj"]),
    ],
)
def test_ignored_layers_take_no_part_in_smoothing(model: HunYuanVL, ignored: tuple[str, ...], left: list[str]) -> None:
    with model.block(model.decoder_blocks[0], 0, set(model.linears) - set(ignored)) as block:
        assert [s.name.removeprefix("model.layers.0.") for s in block.smoothing] == left


def test_the_cache_holds_normed_keys_and_plain_values(model: HunYuanVL) -> None:
    with model.block(model.decoder_blocks[0], 0, model.linears) as block:
        attention = block.module.get_submodule("self_attn")
        assert block.cached == {
            "model.layers.0.self_attn.k_proj": attention.get_submodule("key_layernorm"),
            "model.layers.0.self_attn.v_proj": attention.get_submodule("v_proj"),
        }


def test_a_scale_that_overflows_names_the_layer(model: HunYuanVL) -> None:
    with model.block(model.decoder_blocks[0], 0, model.linears) as block:
        smoothing = block.smoothing[-1]
        with pytest.raises(RunError, match=r"^model.layers.0.mlp.up_proj: its weights overflow torch.bfloat16"):
            fold(block, smoothing, torch.full((block.layers[smoothing.name].out_features,), 1e-41))


def test_a_norm_is_divided_by_what_its_targets_are_multiplied_by() -> None:
    """A norm is rounded to bf16 once more; the targets take the scale it really lost, so that the product is exact."""
    norm = nn.RMSNorm(64, dtype=torch.bfloat16)
    linear = nn.Linear(64, 8, bias=False, dtype=torch.bfloat16)
    with torch.no_grad():
        norm.weight.copy_(torch.rand(64) + 0.5)
        linear.weight.fill_(1.0)
    before = norm.weight.detach().float()
    smoothing = Smoothing("b.norm", norm, ("b.linear",), torch.arange(64), linear)
    block = Block(
        0, "b", nn.Sequential(norm, linear), {"b.linear": linear}, (("b.linear",),), lambda b: b.hidden_states
    )
    fold(block, smoothing, torch.rand(64) + 0.5)
    product = norm.weight.float() * linear.weight[0].float()
    assert ((product - before).abs() <= before * 2**-8).all()
