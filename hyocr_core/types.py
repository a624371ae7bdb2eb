"""What crosses the plugin contract. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hyocr_core.config import MethodConfig

API_VERSION = 1

Stats: TypeAlias = "dict[str, Tensor]"
"""What `calibrate` learns about one layer: tensors only, so that the core can move, reduce and save them."""


@dataclass(frozen=True)
class MethodSpec:
    """What a method says of itself without importing torch.

    api_version: the number of the contract the plugin was written for, as a literal; hyocr_core.API_VERSION is the
    number this core speaks.
    """

    name: str
    config_class: type[MethodConfig]
    summary: str
    api_version: int = field(kw_only=True)
    needs_calibration: bool = True
    rescales_block: bool = False


@dataclass(frozen=True)
class Layer:
    """One linear to quantize.

    name: on-disk module name, such as `model.layers.0.self_attn.q_proj`.
    weight: (out_features, in_features), in the checkpoint's dtype; never modified in place.
    """

    name: str
    weight: Tensor


@dataclass(frozen=True)
class QuantizedLayer:
    """The result for one linear.

    tensors: whatever the method's `pack` needs (codes, scales, zero points).
    dequantized: (out_features, in_features) in the dtype of the weight: what a runtime will compute with.
    metrics: numbers for the report, such as `output_error`.
    degraded: why the result is worse than the method promises; None when it is not.
    """

    name: str
    tensors: Stats
    dequantized: Tensor
    metrics: Mapping[str, float] = field(default_factory=dict)
    degraded: str | None = None


@dataclass(frozen=True)
class QuantizedNames:
    """In-memory names (Transformers') of every linear of the model, as `quantization_config` needs them."""

    quantized: tuple[str, ...]
    ignored: tuple[str, ...]


@dataclass(frozen=True)
class Batch:
    """One calibration sample at the input of a block, without padding.

    hidden_states: (1, tokens, hidden_size).
    position_embeddings: (cos, sin), each (1, tokens, head_dim).
    """

    name: str
    hidden_states: Tensor
    position_embeddings: tuple[Tensor, Tensor]


class Batches(Protocol):
    """The cached inputs of one block; can be iterated as often as a method needs."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Block:
    """One decoder block, alone in memory.

    name: on-disk module name, such as `model.layers.0`.
    layers: on-disk name -> live linear, only those to quantize, in order of execution.
    groups: the names in `layers`, those that share one input together.
    run: computes the block's output, (1, tokens, hidden_size), for one batch.
    """

    index: int
    name: str
    module: nn.Module
    layers: Mapping[str, nn.Linear]
    groups: tuple[tuple[str, ...], ...]
    run: Callable[[Batch], Tensor]
