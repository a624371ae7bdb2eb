"""A tiny checkpoint of random float32 weights, and pages of random pixels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import HunYuanVLConfig, HunYuanVLForConditionalGeneration

from hyocr_core.contract.page_source import Record

STOP = list(range(0, 384, 6))  # so many tokens end an answer that answers of a random model differ in length


def save_tiny(demo: Path, folder: Path, *, noise: float = 0.0) -> Path:
    """Write a random model with the demo's tokenizer and processor; `noise` moves its decoder's weights a little."""
    shutil.copytree(demo, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    config: Any = HunYuanVLConfig.from_pretrained(demo)
    config.dtype = torch.float32
    config.text_config.num_hidden_layers = 2
    config.text_config.initializer_range = config.vision_config.initializer_range = 0.2
    config.vision_config.num_hidden_layers = 1
    torch.manual_seed(0)
    model: Any = HunYuanVLForConditionalGeneration(config)
    model.float()
    with torch.no_grad():
        for parameter in model.model.language_model.layers.parameters():
            parameter += noise * torch.randn_like(parameter)
    model.save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": STOP, "max_new_tokens": 12}))
    return folder


def page(index: int, answer: str | None = "abc def") -> Record:
    """Random pixels; every third page is narrower."""
    torch.manual_seed(index)
    width = 128 if index % 3 == 0 else 256
    pixels = (torch.rand(32, width, 3) * 255).to(torch.uint8).numpy()
    return Record(f"page-{index}", None, answer, lambda: Image.fromarray(pixels))
