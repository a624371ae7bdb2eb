"""A decoder block in small: grouped-query attention and a gated MLP between norms, with all four smoothing groups."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from hyocr_core import Batch, Block, Smoothing

NAME = "model.layers.0"
HIDDEN, HEADS, KV_HEADS, HEAD_SIZE, INTERMEDIATE = 64, 4, 2, 32, 96


class Attention(nn.Module):
    """Causal, with a position embedding of the sample added to queries and keys; returns a pair as Transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = nn.Linear(HIDDEN, HEADS * HEAD_SIZE, bias=False)
        self.k_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_SIZE, bias=False)
        self.v_proj = nn.Linear(HIDDEN, KV_HEADS * HEAD_SIZE, bias=False)
        self.o_proj = nn.Linear(HEADS * HEAD_SIZE, HIDDEN, bias=False)

    def forward(self, x: Tensor, *, position: Tensor) -> tuple[Tensor, None]:
        q, k, v = (
            layer(x).view(1, x.shape[1], -1, HEAD_SIZE).transpose(1, 2)
            for layer in (self.q_proj, self.k_proj, self.v_proj)
        )
        mixed = functional.scaled_dot_product_attention(q + position, k + position, v, is_causal=True, enable_gqa=True)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)), None


class Mlp(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(HIDDEN, INTERMEDIATE, bias=False)
        self.up_proj = nn.Linear(HIDDEN, INTERMEDIATE, bias=False)
        self.down_proj = nn.Linear(INTERMEDIATE, HIDDEN, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return output


class Decoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(HIDDEN)
        self.self_attn = Attention()
        self.post_attention_layernorm = nn.RMSNorm(HIDDEN)
        self.mlp = Mlp()

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), position=position)[0]
        output: Tensor = x + self.mlp(self.post_attention_layernorm(x))
        return output


def _smoothing(module: Decoder) -> tuple[Smoothing, ...]:
    attention, mlp = module.self_attn, module.mlp
    queries = torch.arange(HEADS * HEAD_SIZE)
    shared = queries // (HEAD_SIZE * HEADS // KV_HEADS) * HEAD_SIZE + queries % HEAD_SIZE

    def group(source: str, targets: tuple[str, ...], channels: Tensor, inspected: nn.Module) -> Smoothing:
        names = tuple(f"{NAME}.{target}" for target in targets)
        return Smoothing(f"{NAME}.{source}", module.get_submodule(source), names, channels, inspected)

    qkv = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    return (
        group("input_layernorm", qkv, torch.arange(HIDDEN), attention),
        group("self_attn.v_proj", ("self_attn.o_proj",), shared, attention.o_proj),
        group("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj"), torch.arange(HIDDEN), mlp),
        group("mlp.up_proj", ("mlp.down_proj",), torch.arange(INTERMEDIATE), mlp.down_proj),
    )


def make_block(dtype: torch.dtype = torch.float32, seed: int = 0) -> Block:
    """A block whose norms give some channels far more weight than others, as those of trained models do."""
    gen = torch.Generator().manual_seed(seed)
    module = Decoder()
    with torch.no_grad():
        for parameter in module.parameters():
            values = torch.randn(parameter.shape, generator=gen)
            parameter.copy_(0.08 * values if parameter.ndim == 2 else (0.8 * values).exp())
        module.input_layernorm.weight[5] *= 12
        module.post_attention_layernorm.weight[40] *= 12
        module.self_attn.v_proj.weight[7] *= 12
        module.mlp.up_proj.weight[11] *= 12
    module.to(dtype)
    smoothing = _smoothing(module)
    layers = {f"{NAME}.{path}": part for path, part in module.named_modules() if isinstance(part, nn.Linear)}
    groups = tuple(item.targets for item in smoothing)
    return Block(0, NAME, module, layers, groups, lambda b: module(b.hidden_states, b.context["position"]), smoothing)


def make_batches(dtype: torch.dtype = torch.float32, lengths: tuple[int, ...] = (90, 33, 61)) -> list[Batch]:
    """Samples of several lengths with strongly correlated channels, each with its own positions."""
    gen = torch.Generator().manual_seed(1)
    mix = torch.randn(12, HIDDEN, generator=gen)
    batches = []
    for index, length in enumerate(lengths):
        x = torch.randn(1, length, 12, generator=gen) @ mix + 0.3 * torch.randn(1, length, HIDDEN, generator=gen)
        position = torch.randn(1, 1, length, HEAD_SIZE, generator=gen)
        batches.append(Batch(f"page {index}", x.to(dtype), {"position": position.to(dtype)}))
    return batches


@pytest.fixture
def block() -> Block:
    return make_block()


@pytest.fixture
def block_of() -> Callable[..., Block]:
    return make_block


@pytest.fixture
def batches() -> list[Batch]:
    return make_batches()


@pytest.fixture
def batches_of() -> Callable[..., list[Batch]]:
    return make_batches
