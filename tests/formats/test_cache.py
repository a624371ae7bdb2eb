"""Where the scales of a cache are stored, and that every other tensor keeps its place."""

from __future__ import annotations

import pytest

from hyocr_core.formats.cache import split_name, stored_name

ATTENTION = "model.layers.3.self_attn"


@pytest.mark.parametrize(
    ("part", "local", "stored"),
    [
        ("k_proj", "k_scale", f"{ATTENTION}.k_scale"),
        ("v_proj", "v_scale", f"{ATTENTION}.v_scale"),
        ("k_proj", "weight_scale", f"{ATTENTION}.k_proj.weight_scale"),
        ("q_proj", "qweight", f"{ATTENTION}.q_proj.qweight"),
        ("v_proj", "k_scale", f"{ATTENTION}.v_proj.k_scale"),
    ],
)
def test_scales_of_a_cache_are_stored_with_the_attention(part: str, local: str, stored: str) -> None:
    assert stored_name(f"{ATTENTION}.{part}", local) == stored


@pytest.mark.parametrize(
    ("part", "local"), [("k_proj", "k_scale"), ("v_proj", "v_scale"), ("k_proj", "weight_scale"), ("o_proj", "weight")]
)
def test_stored_names_lead_back_to_the_linear(part: str, local: str) -> None:
    assert split_name(stored_name(f"{ATTENTION}.{part}", local)) == (f"{ATTENTION}.{part}", local)


def test_scales_that_others_store_with_the_linear_are_found_too() -> None:
    assert split_name(f"{ATTENTION}.k_proj.k_scale") == (f"{ATTENTION}.k_proj", "k_scale")
    assert split_name("lm_head.weight") == ("lm_head", "weight")
