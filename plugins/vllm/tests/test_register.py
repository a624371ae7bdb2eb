"""The plugin as vLLM calls it, on Transformers' own classes, which each test leaves as they were."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hyocr_vllm import SWITCH, pages, register
from transformers.models.hunyuan_vl import modeling_hunyuan_vl as port

from hyocr_core.runtimes.forward import probe

PATCHED = (
    (port.HunYuanVLRotaryEmbedding, "recomposition_frequencies"),
    (port.HunYuanVLVisionPatchEmbed, "interpolate_pos_encoding"),
    (port.HunYuanVLModel, "get_image_features"),
)
GRIDS = torch.tensor([[1, 4, 6], [1, 2, 2]])
"""Two images, of 2 x 3 and 1 x 1 merged cells."""


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = [getattr(owner, name) for owner, name in PATCHED]
    yield
    for (owner, name), value in zip(PATCHED, before, strict=True):
        setattr(owner, name, value)
    probe.cache_clear()


def test_vllm_finds_it() -> None:
    [entry] = importlib.metadata.entry_points(group="vllm.general_plugins", name="hyocr")
    assert entry.load() is register


def test_the_forward_becomes_the_references(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    assert probe() == "transformers"
    register()
    assert probe() == "reference"


def test_it_may_be_called_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    register()
    before = [getattr(owner, name) for owner, name in PATCHED]
    register()
    assert [getattr(owner, name) for owner, name in PATCHED] == before


def test_it_can_be_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "transformers")
    before = [getattr(owner, name) for owner, name in PATCHED]
    register()
    assert [getattr(owner, name) for owner, name in PATCHED] == before


@pytest.mark.parametrize("batched", [False, True])
def test_features_that_come_in_one_piece_are_split_where_images_end(
    monkeypatch: pytest.MonkeyPatch, batched: bool
) -> None:
    features = torch.arange(14 * 4.0).view(14, 4)
    pieces: Any = features[None] if batched else features

    def old(_self: object, _pixels: object, _grids: object, **_options: object) -> SimpleNamespace:
        return SimpleNamespace(pooler_output=pieces)

    monkeypatch.setattr(port.HunYuanVLModel, "get_image_features", old)
    pages.split_pages()
    model: Any = SimpleNamespace(config=SimpleNamespace(vision_config=SimpleNamespace(spatial_merge_size=2)))
    first, second = port.HunYuanVLModel.get_image_features(model, torch.zeros(1), GRIDS).pooler_output
    assert torch.equal(first, features[:10])
    assert torch.equal(second, features[10:])


def test_features_that_are_split_already_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    split = (torch.zeros(10, 4), torch.ones(4, 4))

    def new(_self: object, _pixels: object, _grids: object, **_options: object) -> SimpleNamespace:
        return SimpleNamespace(pooler_output=split)

    monkeypatch.setattr(port.HunYuanVLModel, "get_image_features", new)
    pages.split_pages()
    model: Any = SimpleNamespace(config=None)
    assert port.HunYuanVLModel.get_image_features(model, torch.zeros(1), GRIDS).pooler_output is split
