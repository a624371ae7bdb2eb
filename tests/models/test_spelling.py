"""Both names of a module are one question."""

from __future__ import annotations

import pytest

from hyocr_core.models.spelling import memory_name, published_name, spellings, tower_of

PAIRS = {
    "model.layers.3.self_attn.q_proj": "model.language_model.layers.3.self_attn.q_proj",
    "vit.layers.0.mlp.dense_h_to_4h": "model.vision_tower.layers.0.mlp.fc1",
    "vit.layers.0.mlp.dense_4h_to_h": "model.vision_tower.layers.0.mlp.fc2",
    "vit.perceive.mlp": "model.vision_tower.patch_merger.mlp",
    "lm_head": "lm_head",
}


@pytest.mark.parametrize(("published", "memory"), PAIRS.items())
def test_either_name_gives_both(published: str, memory: str) -> None:
    assert spellings(published) == spellings(memory) == (published, memory)
    assert memory_name(f"{published}.weight") == memory_name(f"{memory}.weight") == f"{memory}.weight"
    assert published_name(f"{memory}.weight") == f"{published}.weight"


@pytest.mark.parametrize(
    ("name", "tower"),
    [
        ("vit.layers.0", "vision tower"),
        ("model.vision_tower.layers.0", "vision tower"),
        ("vit.perceive.mlp", "vision tower"),
        ("model.layers.0", "decoder"),
        ("model.language_model.layers.0.mlp.up_proj", "decoder"),
        ("lm_head", "decoder"),
    ],
)
def test_the_tower_of_a_block(name: str, tower: str) -> None:
    assert tower_of(name) == tower
