"""The model's own forward, where Transformers' port computes something else.

The reference is Tencent's code: `train/modeling_hunyuan_vl.py` in Tencent-Hunyuan/HunyuanOCR, with which vLLM's native
model (up to 0.28) and llama.cpp agree. Transformers (5.13 to 5.24) differs in the two places below; docs/forward.md
tells what that does.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias, get_args

import torch
from torch import Tensor, nn
from transformers.models.hunyuan_vl.modeling_hunyuan_vl import HunYuanVLRotaryEmbedding, HunYuanVLVisionPatchEmbed

Forward: TypeAlias = Literal["reference", "transformers"]
FORWARDS: tuple[Forward, ...] = get_args(Forward)


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
        return interpolate_positions(grid, int(height), int(width), str(self.config.interpolate_mode)).to(
            embeddings.dtype
        )


def interpolate_positions(grid: Tensor, height: int, width: int, mode: str = "bilinear") -> Tensor:
    """Return (1, height * width, hidden_size) of the learned positions `grid` (1, edge, edge, hidden_size)."""
    factors = [(side + 0.1) / grid.shape[1] for side in (height, width)]
    resized = nn.functional.interpolate(grid.permute(0, 3, 1, 2), scale_factor=factors, mode=mode, align_corners=False)
    return resized.permute(0, 2, 3, 1).flatten(1, 2)


_OVERRIDES: tuple[tuple[type[nn.Module], type[nn.Module]], ...] = (
    (HunYuanVLRotaryEmbedding, ReferenceRotaryEmbedding),
    (HunYuanVLVisionPatchEmbed, ReferencePatchEmbed),
)


def set_forward(model: nn.Module, forward: Forward) -> None:
    """Let a model of Transformers, or one of its modules, compute that forward from now on."""
    for module in model.modules():
        for theirs, reference in _OVERRIDES:
            if isinstance(module, theirs):
                # The overrides hold nothing of their own: a module may be on the meta device, or loaded by others.
                swapped: Any = module
                swapped.__class__ = reference if forward == "reference" else theirs
