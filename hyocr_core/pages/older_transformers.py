"""What Transformers lacks in the versions from 5.16.1 on that vLLM still allows, all in one place.

Imports nothing of hyocr: `vllm_runner` loads this file by its path, in an environment without hyocr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor


def use_pil_image_processor() -> None:
    """Let Transformers below 5.22 find the PIL image processor of HunYuanVL, which it ties to torchvision needlessly.

    `processor_config.json` names the class `HunYuanVLImageProcessor`, so the PIL class has to answer to that name.
    """
    from transformers import HunYuanVLConfig
    from transformers.models.auto import image_processing_auto
    from transformers.models.hunyuan_vl.image_processing_pil_hunyuan_vl import HunYuanVLImageProcessorPil
    from transformers.utils.import_utils import is_torchvision_available

    if is_torchvision_available() or "torchvision" not in getattr(HunYuanVLImageProcessorPil, "__backends", ()):
        return
    HunYuanVLImageProcessorPil.__name__ = "HunYuanVLImageProcessor"
    mapping: Any = image_processing_auto.IMAGE_PROCESSOR_MAPPING
    mapping.register(HunYuanVLConfig, {"pil": HunYuanVLImageProcessorPil}, exist_ok=True)


def one_tensor(features: Tensor | Sequence[Tensor]) -> Tensor:
    """The features (tokens, hidden size) of all images; below 5.20.1 they are one tensor (1, tokens, hidden size)."""
    import torch

    return features.flatten(0, -2) if isinstance(features, torch.Tensor) else torch.cat(list(features))


def recompose_in_rotary() -> None:
    """Let 5.16 put the axes of positions together in the rotary embedding, as later versions do.

    It does so in every attention, of cosines and sines (axes, B, tokens, head_dim), where nobody can override it alone.
    """
    import torch
    from transformers.models.hunyuan_vl import modeling_hunyuan_vl

    port: Any = modeling_hunyuan_vl
    rotary = port.HunYuanVLRotaryEmbedding
    if hasattr(rotary, "recomposition_frequencies"):
        return
    of_each_axis, rotate = rotary.forward, port.apply_multimodal_rotary_pos_emb

    def forward(self: Any, x: Tensor, position_ids: Tensor) -> tuple[Tensor, Tensor]:
        cos, sin = (values[..., : values.shape[-1] // 2] for values in of_each_axis(self, x, position_ids))
        return self.recomposition_frequencies(cos), self.recomposition_frequencies(sin)

    def recomposition_frequencies(self: Any, freq: Tensor) -> Tensor:
        widths = [2 * width for width in self.mrope_section]
        sections = torch.split(torch.cat((freq, freq), dim=-1), widths, dim=-1)
        return torch.cat([section[axis % len(widths)] for axis, section in enumerate(sections)], dim=-1)

    def rotate_recomposed(q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, mrope_section: Sequence[int]) -> Any:
        alike = (values.expand(len(mrope_section), *values.shape) for values in (cos, sin))
        return rotate(q, k, *alike, mrope_section)

    rotary.forward, rotary.recomposition_frequencies = forward, recomposition_frequencies
    port.apply_multimodal_rotary_pos_emb = rotate_recomposed
