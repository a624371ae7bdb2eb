"""What the kit tries a method on: a random checkpoint of a megabyte, a block of it, and inputs for that."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import HunYuanVLForConditionalGeneration

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.contract.types import Batch, Block
from hyocr_core.models.hunyuan_vl import Embedded, HunYuanVL
from hyocr_core.pages.prompts import DEFAULT_PROMPT
from hyocr_core.testing import layout

TEXT = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 32,
}
VISION = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_image_size": 256,
    "min_image_size": 32,
    "img_max_token_num": 1024,
    "max_vit_seq_len": 1024,
}
PIXELS = (32 * 32, 128 * 128)
"""A page is shrunk to 16 to 25 image tokens."""

PAGES = "synthetic:4"
"""A few rendered pages, always the same."""

LENGTHS = (90, 33, 61)
OUTLIERS = {5: 5.0, 40: 4.0, 77: 4.0, 101: 3.0}
"""Channels of the decoder's norms that weigh more than the others, as some do in every trained model."""


def shared_checkpoint(base: Path) -> Path:
    """The checkpoint below `base`, written by the first who asks."""
    folder = base / "hyocr-checkpoint"
    if not folder.exists():
        write_checkpoint(folder)
    return folder


def write_checkpoint(
    folder: Path,
    *,
    text: Mapping[str, Any] = TEXT,
    vision: Mapping[str, Any] = VISION,
    pixels: tuple[int, int] = PIXELS,
) -> None:
    """Write a checkpoint in the published layout, with random weights: the same bytes every time.

    text, vision: shapes of decoder and vision tower. pixels: the least and the most of a page.
    """
    processor = layout.build_processor(DEFAULT_PROMPT, pixels=pixels)
    config = layout.build_config(layout.build_tokenizer(DEFAULT_PROMPT), text, vision)
    model: Any = HunYuanVLForConditionalGeneration(config)
    model.to(torch.bfloat16)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(_random(name, parameter))
    layout.save_checkpoint(model, processor, folder)


@contextmanager
def open_block(checkpoint: Path) -> Iterator[tuple[Block, list[Batch]]]:
    """The first decoder block of a checkpoint, all its linears to quantize, and samples at its input.

    The samples differ in length, and their channels are strongly correlated, as those of real pages are.
    """
    model = HunYuanVL(CheckpointReader(checkpoint), torch.device("cpu"))
    place = model.decoder_blocks[0]
    with model.block(place, 0, {name for group in model.groups(place) for name in group}) as block:
        yield block, [model.batch(f"page {index}", _embedded(model, length)) for index, length in enumerate(LENGTHS)]


def lone_block(weight: Tensor) -> tuple[Block, list[Batch]]:
    """A block of one linear with this weight (N, K), named like the last one of a decoder block, and its samples."""
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=False)
    linear.weight = nn.Parameter(weight.clone(), requires_grad=False)
    module = nn.ModuleDict({"down_proj": linear})
    name = "model.layers.0.mlp.down_proj"
    block = Block(0, "model.layers.0", module, {name: linear}, ((name,),), lambda batch: linear(batch.hidden_states))
    states = (_correlated(length, weight.shape[1]).to(weight.dtype) for length in LENGTHS)
    return block, [Batch(f"page {index}", state, {}) for index, state in enumerate(states)]


def random_weight(shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
    """A weight (N, K) of a random linear, some outputs of which are larger than others."""
    generator = torch.Generator().manual_seed(shape[0] * 10_007 + shape[1])
    rows = (0.5 * torch.randn(shape[0], 1, generator=generator)).exp()
    return (rows * torch.randn(shape, generator=generator) / math.sqrt(shape[1])).to(dtype)


def _embedded(model: HunYuanVL, length: int) -> Embedded:
    axes = len(model.config.text_config.rope_parameters["mrope_section"])
    states = _correlated(length, model.config.text_config.hidden_size).to(model.dtype)
    return Embedded(states, torch.arange(length).expand(axes, 1, length))


def _correlated(tokens: int, channels: int) -> Tensor:
    """Hidden states (1, tokens, channels) fp32: a few directions, and noise."""
    mixing = torch.Generator().manual_seed(channels)
    generator = torch.Generator().manual_seed(tokens)
    directions = torch.randn(12, channels, generator=mixing)
    noise = torch.randn(1, tokens, channels, generator=generator)
    return (torch.randn(1, tokens, 12, generator=generator) @ directions) / 3 + 0.3 * noise


def _random(name: str, parameter: Tensor) -> Tensor:
    """Values of a parameter that depend on its name and shape alone."""
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    values: Tensor = torch.randn(parameter.shape, generator=generator)
    if parameter.ndim > 1:
        return values * (0.3 if "embed_tokens" in name else 1 / math.sqrt(parameter[0].numel()))
    if name.endswith(".bias"):
        return 0.05 * values
    weight: Tensor = (0.4 * values).exp()
    if "language_model.layers" in name and name.endswith("layernorm.weight") and len(weight) > max(OUTLIERS):
        weight[list(OUTLIERS)] *= torch.tensor(list(OUTLIERS.values()))
    return weight
