"""The features of several images, split where each image ends."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor
from transformers.models.hunyuan_vl.modeling_hunyuan_vl import HunYuanVLModel

from hyocr_core.pages.page_size import image_tokens

_DONE = "_hyocr_splits_pages"


def split_pages() -> None:
    """Let Transformers return a tensor for each image, as it does from 5.20.1 on; before, vLLM splits one for all."""
    theirs = HunYuanVLModel.get_image_features
    if not hasattr(theirs, _DONE):
        patched: Any = _splitting(theirs)
        setattr(patched, _DONE, True)
        HunYuanVLModel.get_image_features = patched  # type: ignore[method-assign]


def _splitting(theirs: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(theirs)
    def get_image_features(self: Any, pixel_values: Tensor, image_grid_thw: Tensor, **kwargs: Any) -> Any:
        outputs = theirs(self, pixel_values, image_grid_thw, **kwargs)
        if isinstance(outputs.pooler_output, Tensor):
            merge = self.config.vision_config.spatial_merge_size
            sizes = [image_tokens(rows, columns, merge) for _, rows, columns in image_grid_thw.tolist()]
            outputs.pooler_output = torch.split(outputs.pooler_output.flatten(0, -2), sizes)
        return outputs

    return get_image_features
