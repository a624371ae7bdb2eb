"""How the linears of HunyuanOCR's blocks hang together; paths are in-memory names inside a block."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from hyocr_core.contract.types import Batch, Smoothing

Run: TypeAlias = Callable[[Any, Batch], Tensor]


@dataclass(frozen=True)
class Link:
    """A smoothing group: every layer of `targets` reads what `source` writes. inspected: see `types.Smoothing`."""

    source: str
    targets: tuple[str, ...]
    inspected: str


@dataclass(frozen=True)
class Wiring:
    """One kind of block.

    groups: its linears in order of execution, those that share an input together.
    fused: whether runtimes fuse the linears of a group into one weight.
    cached: linear -> the module whose output the attention caches in its place.
    last: linear -> the module of the block whose output is that linear's, and for attention a tuple of it and more.
    """

    groups: tuple[tuple[str, ...], ...]
    run: Run
    fused: bool = False
    links: tuple[Link, ...] = ()
    cached: Mapping[str, str] = field(default_factory=dict)
    last: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Place:
    """One block of a model. key: what a run calls it in its journal. path: in-memory module name."""

    key: str
    path: str
    wiring: Wiring


def _run_decoder(module: Any, batch: Batch) -> Tensor:
    output: Tensor = module(batch.hidden_states, position_embeddings=batch.context["position_embeddings"])
    return output


def _run_vision(module: Any, batch: Batch) -> Tensor:
    output: Tensor = module(batch.hidden_states, attention_mask=None, cu_seqlens=batch.context["cu_seqlens"])
    return output


def _run_merger(module: Any, batch: Batch) -> Tensor:
    """The features of a sample's images, one image after the other."""
    grids = batch.context["grid"].tolist()
    images = torch.split(batch.hidden_states, [t * h * w for t, h, w in grids], dim=1)
    return torch.cat([module(image, size=(h, w)) for image, (_, h, w) in zip(images, grids, strict=True)], dim=1)


ATTENTION = "self_attn"
"""The module of a block that returns its output and more."""

_QKV = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
_VALUES = Link("self_attn.v_proj", ("self_attn.o_proj",), "self_attn.o_proj")

DECODER = Wiring(
    groups=(_QKV, ("self_attn.o_proj",), ("mlp.gate_proj", "mlp.up_proj"), ("mlp.down_proj",)),
    run=_run_decoder,
    fused=True,
    links=(
        Link("input_layernorm", _QKV, "self_attn"),
        _VALUES,
        Link("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj"), "mlp"),
        Link("mlp.up_proj", ("mlp.down_proj",), "mlp.down_proj"),
    ),
    # Keys are rotated and normed before they are cached.
    cached={"self_attn.k_proj": "self_attn.key_layernorm", "self_attn.v_proj": "self_attn.v_proj"},
    last={"self_attn.o_proj": ATTENTION, "mlp.down_proj": "mlp"},
)
# A GELU stands between fc1 and fc2: no scale passes it.
VISION = Wiring(
    groups=(_QKV, ("self_attn.o_proj",), ("mlp.fc1",), ("mlp.fc2",)),
    run=_run_vision,
    fused=True,
    links=(Link("layer_norm1", _QKV, "self_attn"), _VALUES, Link("layer_norm2", ("mlp.fc1",), "mlp")),
    last={"self_attn.o_proj": ATTENTION, "mlp.fc2": "mlp"},
)
MERGER = Wiring(groups=(("mlp",),), run=_run_merger)


def smoothing_of(
    block: nn.Module, wiring: Wiring, names: Mapping[str, str], quantized: set[str]
) -> Iterator[Smoothing]:
    """The links of a block whose targets are all quantized and whose source may change: a norm, or quantized itself.

    names: path in the block -> on-disk name. quantized: on-disk names.
    """
    for link in wiring.links:
        source = block.get_submodule(link.source)
        changing = [*link.targets, link.source] if isinstance(source, nn.Linear) else link.targets
        if quantized.issuperset(names[path] for path in changing):
            yield Smoothing(
                name=names[link.source],
                source=source,
                targets=tuple(names[path] for path in link.targets),
                channels=_channels(block, source, block.get_submodule(link.targets[0])),
                inspected=block.get_submodule(link.inspected),
            )


def _channels(block: nn.Module, source: nn.Module, target: Any) -> Tensor:
    channels: Tensor = torch.arange(target.in_features)
    if not isinstance(source, nn.Linear) or source.out_features == target.in_features:
        return channels
    # Grouped-query attention: consecutive query heads read the values of one key-value head.
    size = int(block.get_submodule("self_attn").head_dim)  # type: ignore[arg-type]
    sharing = int(target.in_features) // source.out_features
    return channels // (size * sharing) * size + channels % size
