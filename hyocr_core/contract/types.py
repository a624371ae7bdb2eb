"""What crosses the plugin contract. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hyocr_core.contract.config import MethodConfig

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
class HookCall:
    """One call of a hook that a method's plugin has answered, as an observer of the run sees it.

    layer: name of the layer, of the block for `calibrate`, of all layers of the group for `quantize_group`.
    arguments: what the hook was given, by name. result: what it returned. seconds: how long it took.
    """

    hook: str
    layer: str
    arguments: Mapping[str, Any]
    result: Any
    seconds: float


@dataclass(frozen=True)
class Batch:
    """One calibration sample at the input of a block, without padding.

    hidden_states: (1, tokens, hidden_size); in the vision tower tokens are patches.
    context: what else the block takes, its own for every sample: `position_embeddings`, (cos, sin) of (1, tokens,
    head_dim) each, in the decoder; lengths and sizes of the images in the vision tower.
    weights: how much each token counts in statistics, (tokens,) fp32, with mean 1 over all samples; None: all the same.
    See `hyocr_core.WeightedConfig`.
    """

    name: str
    hidden_states: Tensor
    context: Mapping[str, Any]
    weights: Tensor | None = None


class Batches(Protocol):
    """The cached inputs of one block; can be iterated as often as a method needs."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Batch]: ...


@dataclass(frozen=True)
class Smoothing:
    """A place where a scale per channel can move from the layers it feeds into what feeds them.

    Dividing the source's output channels by scales and multiplying the targets' input channels by the same leaves the
    block's output as it is; see `hyocr_core.kit.smoothing.fold`.

    name: on-disk name of the source, such as `model.layers.0.input_layernorm`.
    source: a norm or a linear.
    targets: names in `Block.layers`; all layers that read the source's output.
    channels: (K,) int64, which output channel of the source feeds the targets' input channel k. With grouped-query
    attention one channel of v_proj feeds several of o_proj.
    inspected: the module of the block whose output a search should keep: the attention, the MLP or the target.
    """

    name: str
    source: nn.Module
    targets: tuple[str, ...]
    channels: Tensor
    inspected: nn.Module


@dataclass(frozen=True)
class Block:
    """One block of the decoder or of the vision tower, alone in memory.

    name: on-disk module name, such as `model.layers.0`.
    layers: on-disk name -> live linear, only those to quantize, in order of execution.
    groups: the names in `layers`, those that share one input together.
    run: computes the block's output, (1, tokens, hidden_size), for one batch.
    smoothing: where scales can be folded, in order of execution.
    cached: modules whose outputs the attention keeps in its cache, by the layer they belong to: k_proj's and v_proj's
    name -> the module; empty where there is no cache.
    """

    index: int
    name: str
    module: nn.Module
    layers: Mapping[str, nn.Linear]
    groups: tuple[tuple[str, ...], ...]
    run: Callable[[Batch], Tensor]
    smoothing: tuple[Smoothing, ...] = ()
    cached: Mapping[str, nn.Module] = field(default_factory=dict)
