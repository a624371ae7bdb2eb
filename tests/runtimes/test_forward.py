"""The reference's forward against formulas written out by hand, and the probe that tells it from Transformers'."""

from __future__ import annotations

import math
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import HunYuanVLTextConfig, HunYuanVLVisionConfig
from transformers.models.hunyuan_vl import modeling_hunyuan_vl as port

from hyocr_core.errors import MissingRuntimeError
from hyocr_core.runtimes import forward

HEAD, SECTIONS = 128, [16, 16, 16, 16]
ROPE = {"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 1000.0, "factor": 1.0, "mrope_section": SECTIONS}
PLACES = torch.tensor([[[40, 41, 42]], [[3, 17, 0]], [[0, 9, 21]], [[1, 1, 2]]])
"""Positions of three image tokens: (axes, 1, tokens)."""


@pytest.fixture
def untouched() -> Iterator[None]:
    """Transformers' classes as they were, once the test is over."""
    before = {theirs: dict(vars(theirs)) for theirs in (port.HunYuanVLRotaryEmbedding, port.HunYuanVLVisionPatchEmbed)}
    yield
    for theirs, members in before.items():
        for name in ("recomposition_frequencies", "interpolate_pos_encoding"):
            if name in members:
                setattr(theirs, name, members[name])
    forward.probe.cache_clear()


def rotated(vectors: Tensor, places: Tensor) -> Tensor:
    """The oracle, in complex numbers: the pair (j, j + 64) is one of them, turned by axis j // 16 of the position.

    vectors: (tokens, head_dim), places: (axes, 1, tokens).
    """
    pairs = torch.complex(vectors[:, : HEAD // 2].double(), vectors[:, HEAD // 2 :].double())
    base = 10000.0 * 1000.0 ** (HEAD / (HEAD - 2))
    for token in range(len(vectors)):
        for pair in range(HEAD // 2):
            angle = places[pair // 16, 0, token].item() * base ** (-2 * pair / HEAD)
            pairs[token, pair] *= complex(math.cos(angle), math.sin(angle))
    return torch.cat([pairs.real, pairs.imag], dim=-1)


def turned(rotary: type[port.HunYuanVLRotaryEmbedding], vectors: Tensor, places: Tensor) -> Tensor:
    """The same by Transformers' code with that embedding."""
    cos, sin = rotary(HunYuanVLTextConfig(head_dim=HEAD, rope_parameters=ROPE))(torch.zeros(1), places)
    apply: Any = port.apply_rotary_pos_emb
    found: Tensor = apply(vectors[None, None], vectors[None, None], cos, sin)[0][0, 0]
    return found.double()


@pytest.fixture
def vectors() -> Tensor:
    return torch.nn.functional.normalize(torch.randn(3, HEAD, generator=torch.Generator().manual_seed(0)), dim=-1)


def test_pairs_turn_by_one_axis(vectors: Tensor) -> None:
    found = turned(forward.ReferenceRotaryEmbedding, vectors, PLACES)
    torch.testing.assert_close(found, rotated(vectors, PLACES), rtol=0, atol=1e-6)


def test_transformers_turns_the_halves_of_a_pair_by_different_axes(vectors: Tensor) -> None:
    found = turned(port.HunYuanVLRotaryEmbedding, vectors, PLACES)
    assert (found - rotated(vectors, PLACES)).abs().max() > 0.1
    text = torch.arange(3).expand(4, 1, 3)
    torch.testing.assert_close(
        turned(port.HunYuanVLRotaryEmbedding, vectors, text), rotated(vectors, text), rtol=0, atol=1e-6
    )


@pytest.mark.parametrize(("rotary", "is_rotation"), [("reference", True), ("transformers", False)])
def test_only_the_reference_depends_on_distances_alone(vectors: Tensor, rotary: str, is_rotation: bool) -> None:
    by_name = {"reference": forward.ReferenceRotaryEmbedding, "transformers": port.HunYuanVLRotaryEmbedding}
    products = [
        (turned(by_name[rotary], vectors, places) @ turned(by_name[rotary], vectors, places).T)
        for places in (PLACES, PLACES + torch.tensor([5, 2, 3, 0]).view(4, 1, 1))
    ]
    assert torch.allclose(products[0], products[1], rtol=0, atol=1e-4) == is_rotation


def looked_up(grid: Tensor, row: float, column: float) -> Tensor:
    """Bilinear interpolation of grid (edge, edge, channels) at one place, clamped at the edges."""
    row, column = max(row, 0.0), max(column, 0.0)
    top, left = math.floor(row), math.floor(column)
    bottom, right = min(top + 1, len(grid) - 1), min(left + 1, len(grid) - 1)
    down, across = row - top, column - left
    above = grid[top, left] * (1 - across) + grid[top, right] * across
    below = grid[bottom, left] * (1 - across) + grid[bottom, right] * across
    return above * (1 - down) + below * down


def places(side: int, edge: int) -> list[float]:
    """Where in a learned grid of `edge` cells the patches of a side lie; PyTorch copies a side of that very length."""
    if side == edge:
        return [float(place) for place in range(side)]
    return [(place + 0.5) * edge / (side + 0.1) - 0.5 for place in range(side)]


@pytest.mark.parametrize(("height", "width"), [(6, 10), (3, 16), (40, 21), (16, 16)])
def test_positions_of_patches_are_interpolated_by_the_longer_factor(height: int, width: int) -> None:
    edge, channels = 16, 3
    config = HunYuanVLVisionConfig(hidden_size=channels, patch_size=4, max_image_size=4 * edge)
    embed: Any = forward.ReferencePatchEmbed(config)
    found = embed.interpolate_pos_encoding(torch.zeros(1), height, width).detach()
    grid = embed.position_embedding.weight.detach()[1:].double().view(edge, edge, channels)
    rows, columns = (places(side, edge) for side in (height, width))
    expected = torch.stack([looked_up(grid, row, column) for row in rows for column in columns])
    torch.testing.assert_close(found[0].double(), expected, rtol=0, atol=1e-5)


def test_the_probe_tells_whose_forward_a_runtime_has() -> None:
    assert forward.probe() == "transformers"
    assert forward.probe(forward.ReferenceRotaryEmbedding, forward.ReferencePatchEmbed) == "reference"
    assert forward.probe(forward.ReferenceRotaryEmbedding, port.HunYuanVLVisionPatchEmbed) is None


@pytest.mark.usefixtures("untouched")
def test_overridden_everywhere_once_and_no_more() -> None:
    assert forward.override_everywhere() == "reference"
    mended = port.HunYuanVLRotaryEmbedding.recomposition_frequencies
    assert forward.override_everywhere() == "reference"
    assert port.HunYuanVLRotaryEmbedding.recomposition_frequencies is mended


@pytest.mark.usefixtures("untouched")
def test_a_transformers_that_was_mended_is_left_alone() -> None:
    forward.override_everywhere()
    model = torch.nn.Sequential(port.HunYuanVLRotaryEmbedding(HunYuanVLTextConfig(head_dim=HEAD, rope_parameters=ROPE)))
    forward.set_forward(model, "reference")
    with pytest.raises(MissingRuntimeError, match="computes the reference's forward itself"):
        forward.set_forward(model, "transformers")


@pytest.mark.usefixtures("untouched")
def test_a_forward_that_nobody_knows_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def strange(_self: object, freq: Tensor) -> Tensor:
        return torch.cat((freq[0], freq[1]), dim=-1)

    monkeypatch.setattr(port.HunYuanVLRotaryEmbedding, "recomposition_frequencies", strange)
    monkeypatch.setattr(forward.ReferenceRotaryEmbedding, "recomposition_frequencies", strange)
    forward.probe.cache_clear()
    assert forward.override_everywhere() is None
    with pytest.raises(MissingRuntimeError, match="in a way that hyocr does not know"):
        forward.set_forward(torch.nn.Linear(1, 1), "reference")


def test_the_file_needs_nothing_of_hyocr() -> None:
    """Nor does the one that goes before it, with old versions of Transformers; as the vLLM runner takes both."""
    code = (
        "import sys; sys.path.append('../pages'); import older_transformers; older_transformers.recompose_in_rotary(); "
        "import forward; print(forward.probe()); print('hyocr_core' in sys.modules)"
    )
    folder = forward.__file__.rpartition("/")[0]
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["transformers", "False"]
