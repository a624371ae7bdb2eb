"""The model's forward for a batch of equal pages, without Transformers' loop over the images.

It reads a mapping from parameter names to tensors, so that training can hand in bf16 copies of float32 weights.
tests/test_demo.py holds it to the model's own forward.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from readers import MERGE, PATCH
from torch import Tensor
from torch.nn import functional

from hyocr_core.contract.backend import Forward
from hyocr_core.runtimes.forward import interpolate_positions

Params = Mapping[str, Tensor]
Config = Any  # a HunYuanVLConfig; Transformers types its parts as dict or None too
Grid = tuple[int, int]  # rows and columns of patches
_VISION, _TEXT = "model.vision_tower.", "model.language_model."


@dataclass(frozen=True)
class Rope:
    """Rotary factors of the fixed layout, a prompt with one page in it, then the answer; forward: whose they are."""

    cos: Tensor
    sin: Tensor
    forward: Forward


def to_patches(pixels: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """uint8 pages [B, H, W] -> normalised patches [B, N, 768], rows first, as the image processor cuts them."""
    batch, height, width = pixels.shape
    rows, cols = height // PATCH, width // PATCH
    gray = pixels.float() / 255.0
    color = (gray[:, None] - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    cut = color.view(batch, 3, rows, PATCH, cols, PATCH).permute(0, 2, 4, 1, 3, 5)
    return cut.reshape(batch, rows * cols, 3 * PATCH * PATCH)


def _linear(p: Params, name: str, x: Tensor) -> Tensor:
    return functional.linear(x, p[f"{name}.weight"], p.get(f"{name}.bias"))


def _rms(p: Params, name: str, x: Tensor, eps: float) -> Tensor:
    return functional.rms_norm(x, (x.shape[-1],), p[f"{name}.weight"], eps)


def _layer_norm(p: Params, name: str, x: Tensor, eps: float) -> Tensor:
    return functional.layer_norm(x, (x.shape[-1],), p[f"{name}.weight"], p[f"{name}.bias"], eps)


def _heads(x: Tensor, count: int) -> Tensor:
    return x.view(*x.shape[:-1], count, -1).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None = None) -> Tensor:
    # Plain matmuls: for sequences this short the fused CPU kernel's backward is far slower.
    scores = q @ k.transpose(-2, -1) * q.shape[-1] ** -0.5
    scores = scores if mask is None else scores + mask
    mixed: Tensor = (scores.softmax(dim=-1) @ v).transpose(1, 2)
    return mixed.flatten(-2)


def _vision_block(p: Params, name: str, x: Tensor, heads: int, eps: float) -> Tensor:
    inner = _layer_norm(p, f"{name}.layer_norm1", x, eps)
    q, k, v = (_heads(_linear(p, f"{name}.self_attn.{part}_proj", inner), heads) for part in "qkv")
    x = x + _linear(p, f"{name}.self_attn.o_proj", _attend(q, k, v))
    inner = _layer_norm(p, f"{name}.layer_norm2", x, eps)
    return x + _linear(p, f"{name}.mlp.fc2", functional.gelu(_linear(p, f"{name}.mlp.fc1", inner)))


def _positions(p: Params, edge: int, size: Grid, forward: Forward) -> Tensor:
    grid = p[_VISION + "embeddings.position_embedding.weight"][1:].float().view(1, edge, edge, -1)
    if forward == "reference":
        return interpolate_positions(grid, *size)
    resized = functional.interpolate(grid.permute(0, 3, 1, 2), size=size, mode="bilinear", align_corners=False)
    return resized.permute(0, 2, 3, 1).flatten(1, 2)


def _merge(p: Params, x: Tensor, grid: Grid, eps: float) -> Tensor:
    name = _VISION + "patch_merger"
    batch, rows, cols = x.shape[0], grid[0] // MERGE, grid[1] // MERGE
    x = _rms(p, f"{name}.before_rms", x, eps)
    # A 2x2 convolution of stride 2 is a linear layer on (channel, row, column) of each 2x2 block.
    blocks = x.view(batch, rows, MERGE, cols, MERGE, -1).permute(0, 1, 3, 5, 2, 4).flatten(3)
    hidden = functional.gelu(
        functional.linear(blocks, p[f"{name}.proj_conv.weight"].flatten(1), p[f"{name}.proj_conv.bias"])
    )
    hidden = functional.linear(hidden, p[f"{name}.proj_out.weight"].flatten(1), p[f"{name}.proj_out.bias"])
    newline = p[f"{name}.image_newline"].expand(batch, rows, 1, -1)
    hidden = _linear(p, f"{name}.mlp", torch.cat([hidden, newline], dim=2)).flatten(1, 2)
    begin, end = (p[f"{name}.image_{side}"].expand(batch, 1, -1) for side in ("begin", "end"))
    return _rms(p, f"{name}.after_rms", torch.cat([begin, hidden, end], dim=1), eps)


def vision(p: Params, config: Config, patches: Tensor, grid: Grid, forward: Forward) -> Tensor:
    """Patches [B, N, 768] -> image features [B, image tokens, hidden]."""
    spec = config.vision_config
    name = _VISION + "embeddings."
    x = functional.linear(patches, p[name + "patch_embedding.weight"].flatten(1), p[name + "patch_embedding.bias"])
    x = x + _positions(p, spec.max_image_size // PATCH, grid, forward).to(x.dtype)
    for layer in range(spec.num_hidden_layers):
        x = _vision_block(p, f"{_VISION}layers.{layer}", x, spec.num_attention_heads, spec.rms_norm_eps)
    return _merge(p, x, grid, spec.rms_norm_eps)


def _rotate(x: Tensor, rope: Rope) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * rope.cos + torch.cat((-second, first), dim=-1) * rope.sin


def _attention(p: Params, config: Config, name: str, x: Tensor, rope: Rope) -> Tensor:
    spec = config.text_config
    q, k = (_heads(_linear(p, f"{name}.{part}_proj", x), count) for part, count in _head_counts(config))
    v = _heads(_linear(p, f"{name}.v_proj", x), spec.num_key_value_heads)
    q = _rms(p, f"{name}.query_layernorm", _rotate(q, rope), spec.rms_norm_eps)
    k = _rms(p, f"{name}.key_layernorm", _rotate(k, rope), spec.rms_norm_eps)
    repeat = spec.num_attention_heads // spec.num_key_value_heads
    k, v = k.repeat_interleave(repeat, dim=1), v.repeat_interleave(repeat, dim=1)
    length = x.shape[1]
    mask = torch.full((length, length), -torch.inf, dtype=x.dtype).triu(1)
    return _linear(p, f"{name}.o_proj", _attend(q, k, v, mask))


def _head_counts(config: Config) -> tuple[tuple[str, int], tuple[str, int]]:
    return ("q", config.text_config.num_attention_heads), ("k", config.text_config.num_key_value_heads)


def _decoder_layer(p: Params, config: Config, name: str, x: Tensor, rope: Rope) -> Tensor:
    eps = config.text_config.rms_norm_eps
    x = x + _attention(p, config, f"{name}.self_attn", _rms(p, f"{name}.input_layernorm", x, eps), rope)
    inner = _rms(p, f"{name}.post_attention_layernorm", x, eps)
    gated = functional.silu(_linear(p, f"{name}.mlp.gate_proj", inner)) * _linear(p, f"{name}.mlp.up_proj", inner)
    return x + _linear(p, f"{name}.mlp.down_proj", gated)


def decoder(p: Params, config: Config, ids: Tensor, image: Tensor, start: int, rope: Rope) -> list[Tensor]:
    """Hidden states after each layer and, last, after the norm; the image features replace ids[:, start:]."""
    embedded = functional.embedding(ids, p[_TEXT + "embed_tokens.weight"])
    x = torch.cat([embedded[:, :start], image, embedded[:, start + image.shape[1] :]], dim=1)
    states = []
    for layer in range(config.text_config.num_hidden_layers):
        x = _decoder_layer(p, config, f"{_TEXT}layers.{layer}", x, rope)
        states.append(x)
    return [*states, _rms(p, _TEXT + "norm", x, config.text_config.rms_norm_eps)]


def logits(p: Params, hidden: Tensor) -> Tensor:
    """The head is tied to the embedding."""
    return functional.linear(hidden, p[_TEXT + "embed_tokens.weight"])
