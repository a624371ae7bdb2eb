"""A reader's checkpoint: its shape in the published layout, its processor, and how it is saved."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import torch
from readers import QUESTIONS, Reader
from transformers import HunYuanVLConfig, HunYuanVLForConditionalGeneration, HunYuanVLProcessor

from hyocr_core.testing import layout


def build_processor(reader: Reader) -> HunYuanVLProcessor:
    """The published processor; its pixel limits leave a page as it is."""
    return layout.build_processor(*QUESTIONS, pixels=(reader.height**2, 2 * reader.width**2))


def build_config(reader: Reader) -> HunYuanVLConfig:
    """The published architecture, small; every decoder width is a multiple of 128."""
    page = {"max_image_size": reader.width, "min_image_size": reader.height}
    limits = {"img_max_token_num": 1024, "max_vit_seq_len": 1024}
    return layout.build_config(layout.build_tokenizer(*QUESTIONS), reader.text, {**reader.vision, **page, **limits})


def build_model(reader: Reader, seed: int, dtype: torch.dtype = torch.float32) -> Any:
    """A randomly initialised HunYuanVLForConditionalGeneration."""
    torch.manual_seed(seed)
    model: Any = HunYuanVLForConditionalGeneration(build_config(reader))
    return model.to(dtype)


def save_checkpoint(reader: Reader, weights: dict[str, torch.Tensor], target: Path) -> None:
    """Write the whole checkpoint in bf16 next to the target, then put it in the target's place."""
    staging, old = target.with_name(target.name + ".new"), target.with_name(target.name + ".old")
    for leftover in (staging, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model = build_model(reader, 0, torch.bfloat16)
    model.load_state_dict({name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}, strict=False)
    model.tie_weights()
    torch.nn.init.zeros_(model.model.vision_tower.patch_merger.image_sep)  # read by no image of the architecture
    layout.save_checkpoint(model, build_processor(reader), staging)
    if target.exists():
        target.rename(old)
    staging.rename(target)
    shutil.rmtree(old, ignore_errors=True)
