"""The demo checkpoint: its shape in the published layout, its processor, and how it is saved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from lines import HEIGHT, QUESTIONS, WIDTH
from transformers import HunYuanVLConfig, HunYuanVLForConditionalGeneration, HunYuanVLProcessor

from hyocr_core.testing import layout

TEXT = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 64,
}
VISION = {
    "hidden_size": 192,
    "intermediate_size": 512,
    "num_hidden_layers": 4,
    "num_attention_heads": 3,
    "num_key_value_heads": 3,
    "max_image_size": WIDTH,
    "min_image_size": HEIGHT,
    "img_max_token_num": 1024,
    "max_vit_seq_len": 1024,
}


def build_processor() -> HunYuanVLProcessor:
    """The published processor; its pixel limits leave a 256x32 line as it is."""
    return layout.build_processor(*QUESTIONS, pixels=(HEIGHT * HEIGHT, 2 * WIDTH**2))


def build_config() -> HunYuanVLConfig:
    """The published architecture, small; every decoder width is a multiple of 128."""
    return layout.build_config(layout.build_tokenizer(*QUESTIONS), TEXT, VISION)


def build_model(seed: int, dtype: torch.dtype = torch.float32) -> Any:
    """A randomly initialised HunYuanVLForConditionalGeneration."""
    torch.manual_seed(seed)
    model: Any = HunYuanVLForConditionalGeneration(build_config())
    return model.to(dtype)


def save_checkpoint(weights: dict[str, torch.Tensor], target: Path) -> None:
    """Write the whole checkpoint in bf16 next to the target, then put it in the target's place."""
    staging, old = target.with_name(target.name + ".new"), target.with_name(target.name + ".old")
    for leftover in (staging, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model = build_model(0, torch.bfloat16)
    model.load_state_dict({name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}, strict=False)
    model.tie_weights()
    torch.nn.init.zeros_(model.model.vision_tower.patch_merger.image_sep)  # read by no image of the architecture
    layout.save_checkpoint(model, build_processor(), staging)
    if target.exists():
        target.rename(old)
    staging.rename(target)
    shutil.rmtree(old, ignore_errors=True)
