"""The model's own forward, and where Transformers' port, with vLLM through it, computes another.

The reference is Tencent's code: `train/modeling_hunyuan_vl.py` in Tencent-Hunyuan/HunyuanOCR, with which vLLM's native
model (up to 0.28) and llama.cpp agree. Transformers 5.13 to 5.24 differs in the two places below; docs/forward.md tells
what that does. At run time this file needs torch and Transformers alone, so that clients can import it by itself.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import Tensor, nn
from transformers import HunYuanVLTextConfig, HunYuanVLVisionConfig
from transformers.models.hunyuan_vl.modeling_hunyuan_vl import HunYuanVLRotaryEmbedding, HunYuanVLVisionPatchEmbed

if TYPE_CHECKING:
    from hyocr_core.contract.backend import Forward


class ReferenceRotaryEmbedding(HunYuanVLRotaryEmbedding):
    """Turns the pair (j, j + head_dim / 2) of a head by one axis of the position.

    Transformers doubles each section instead of repeating the list of them, so that the two halves of a pair turn by
    different axes: for image tokens, whose axes differ, that is no rotation.
    """

    def recomposition_frequencies(self, freq: Tensor) -> Tensor:
        """Return (B, tokens, head_dim) of freq, the cosines or sines of every axis (axes, B, tokens, head_dim / 2)."""
        widths: list[int] = self.mrope_section or [freq.shape[-1]]
        sections = torch.split(freq, widths, dim=-1)
        half = torch.cat([section[axis] for axis, section in enumerate(sections)], dim=-1)
        return torch.cat((half, half), dim=-1)


class ReferencePatchEmbed(HunYuanVLVisionPatchEmbed):
    """Interpolates the learned grid of positions by a factor a tenth of a patch larger than the page asks for.

    Transformers interpolates to the page's size, up to a quarter of a grid cell away at a page's far edge.
    """

    def interpolate_pos_encoding(self, embeddings: Tensor, height: int, width: int) -> Tensor:
        """Return (1, height * width, hidden_size) in the dtype of `embeddings`; height and width in patches."""
        grid = self.position_embedding.weight[1:].float().view(1, self.position_edge, self.position_edge, -1)
        mode = str(self.config.interpolate_mode)
        return interpolate_positions(grid, int(height), int(width), mode).to(embeddings.dtype)


def interpolate_positions(grid: Tensor, height: int, width: int, mode: str = "bilinear") -> Tensor:
    """Return (1, height * width, hidden_size) of the learned positions `grid` (1, edge, edge, hidden_size)."""
    factors = [(side + 0.1) / grid.shape[1] for side in (height, width)]
    resized = nn.functional.interpolate(grid.permute(0, 3, 1, 2), scale_factor=factors, mode=mode, align_corners=False)
    return resized.permute(0, 2, 3, 1).flatten(1, 2)


_REFERENCE: dict[type[nn.Module], type[nn.Module]] = {
    HunYuanVLRotaryEmbedding: ReferenceRotaryEmbedding,
    HunYuanVLVisionPatchEmbed: ReferencePatchEmbed,
}


def set_forward(model: nn.Module, forward: Forward) -> None:
    """Let a model of Transformers, or a module of one, compute that forward from now on.

    Raises MissingRuntimeError when the Transformers installed cannot be brought to it.
    """
    _check(forward)
    for module in model.modules():
        for theirs, reference in _REFERENCE.items():
            if isinstance(module, theirs):
                # The overrides hold nothing of their own: a module may be on the meta device, or loaded by others.
                swapped: Any = module
                swapped.__class__ = reference if forward == "reference" else theirs


def _check(forward: Forward) -> None:
    from hyocr_core.errors import MissingRuntimeError

    known = (probe(), probe(ReferenceRotaryEmbedding, ReferencePatchEmbed))
    if forward == "reference" and known[1] != "reference":
        raise MissingRuntimeError(
            f"Transformers {transformers.__version__} computes HunyuanOCR's forward in a way that hyocr does not know; "
            "install one from 5.16.1 to 5.24, or give --forward transformers"
        )
    if forward == "transformers" and known[0] == "reference":
        raise MissingRuntimeError(
            f"Transformers {transformers.__version__} computes the reference's forward itself: leave "
            "--forward transformers out"
        )


@cache
def probe(
    rotary: type[HunYuanVLRotaryEmbedding] = HunYuanVLRotaryEmbedding,
    patches: type[HunYuanVLVisionPatchEmbed] = HunYuanVLVisionPatchEmbed,
) -> Forward | None:
    """Whose forward these classes of a runtime compute, by a position that tells; None for neither, or half of one."""
    found = {_probe_rotary(rotary), _probe_grid(patches)}
    return found.pop() if len(found) == 1 else None


_SECTIONS = (1, 2, 3, 2)
_POSITION = (3, 5, 11, 2)
"""A position whose axes differ, in sections that differ."""


@torch.no_grad()
def _probe_rotary(rotary: type[HunYuanVLRotaryEmbedding]) -> Forward | None:
    pairs = sum(_SECTIONS)
    rope = {"rope_type": "dynamic", "rope_theta": 10000.0, "alpha": 1000.0, "factor": 1.0}
    config = HunYuanVLTextConfig(head_dim=2 * pairs, rope_parameters={**rope, "mrope_section": list(_SECTIONS)})
    axes = [axis for axis, width in enumerate(_SECTIONS) for _ in range(width)]
    doubled = [axis for axis, width in enumerate(_SECTIONS) for _ in range(2 * width)]
    base = 10000.0 * 1000.0 ** (pairs / (pairs - 1))
    turns = [base ** -(pair / pairs) for pair in range(pairs)] * 2
    found = rotary(config)(torch.zeros(1), torch.tensor(_POSITION).view(4, 1, 1))[0].flatten().double()
    for forward, order in _named(reference=axes * 2, transformers=doubled):
        angles = [_POSITION[axis] * turn for axis, turn in zip(order, turns, strict=True)]
        if torch.allclose(found, torch.tensor(angles, dtype=torch.float64).cos(), rtol=0, atol=1e-5):
            return forward
    return None


_EDGE, _SIDE = 4, 6
"""Of the learned grid and of the page, in patches."""


@torch.no_grad()
def _probe_grid(patches: type[HunYuanVLVisionPatchEmbed]) -> Forward | None:
    config = HunYuanVLVisionConfig(hidden_size=1, patch_size=2, max_image_size=2 * _EDGE, num_channels=1)
    # What a module is filled with at first must not move the random numbers of whoever asks.
    with torch.random.fork_rng(devices=[]):
        module: Any = patches(config)
    # The learned position of a cell is its column, so that what is interpolated says which column was looked at.
    columns = torch.arange(_EDGE).repeat(_EDGE).float()
    module.position_embedding.weight.copy_(torch.cat([torch.zeros(1), columns])[:, None])
    found = module.interpolate_pos_encoding(torch.zeros(1), _SIDE, _SIDE).flatten()[:_SIDE]
    for forward, span in _named(reference=_SIDE + 0.1, transformers=float(_SIDE)):
        looked_at = ((torch.arange(_SIDE) + 0.5) * _EDGE / span - 0.5).clamp(0, _EDGE - 1)
        if torch.allclose(found, looked_at, rtol=0, atol=1e-5):
            return forward
    return None


def _named(*, reference: Any, transformers: Any) -> list[tuple[Forward, Any]]:
    return [("reference", reference), ("transformers", transformers)]


def override_everywhere() -> Forward | None:
    """Give Transformers' own classes the reference's forward, for models that others make of them in this process.

    Steps aside where Transformers computes it already, or what hyocr does not know. Returns what it computes now.
    """
    if probe() == "transformers":
        for theirs, reference in _REFERENCE.items():
            for name in vars(reference).keys() & vars(theirs).keys() - vars(nn.Module).keys():
                setattr(theirs, name, vars(reference)[name])
        probe.cache_clear()
    return probe()
