"""What crosses the plugin contract. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from hyocr_core.contract.config import MethodConfig

API_VERSION = 1

Kind: TypeAlias = Literal["linear", "embedding", "head"]
"""What a layer is: a linear of a block, the token embedding, or the head that predicts tokens."""


@dataclass(frozen=True)
class Stat:
    """A tensor that `calibrate` gathered over calibration tokens.

    merge: how the tensors of two sets of samples become that of both, element by element: `sum`, or `max`. What is
    neither (a mean, a choice, a scale) is made of merged ones, in `settle`.
    """

    value: Tensor
    merge: Literal["sum", "max"]


Collected: TypeAlias = dict[str, Stat]
"""What `calibrate` gathers for one layer, by name."""

Stats: TypeAlias = "dict[str, Tensor]"
"""What is known of one layer once all samples are merged and settled: tensors only, by name."""


@dataclass(frozen=True)
class MethodSpec:
    """What a method says of itself without importing torch.

    api_version: the number of the contract the plugin was written for, or several that it keeps, as literals;
    hyocr_core.API_VERSION is the number this core speaks.
    rescales_block: `settle` may change the block's parameters if its output stays the same.
    inputs: what `calibrate` sees. block: once for each block, the inputs of the block, all of whose layers are still as
    they were. group: once for each group of layers that share an input, that input, made by the layers before it as
    they are once quantized.
    reference_inputs: every batch brings, as `reference`, the same input on the full-precision path, where nothing is
    quantized; in the decoder, but for a vision tower that another method quantized, which asked for no such path.
    original_inputs: of a method that sees blocks and finds as much in what the blocks before make of the samples
    unquantized. Where all methods of a run say so, a block runs over the samples once instead of twice.
    layers_apart: `quantize_group` does for each layer what it would do for it alone, up to rounding, so that several
    processes may share a group.
    learns_alike: of a method that sees groups: `calibrate` and `settle` make the same of the same batches whatever the
    options, and `quantize_group` leaves it as it is, so that candidates of a search that differ in options share it.
    """

    name: str
    config_class: type[MethodConfig]
    summary: str
    api_version: int | tuple[int, ...] = field(kw_only=True)
    needs_calibration: bool = True
    rescales_block: bool = False
    inputs: Literal["block", "group"] = "block"
    reference_inputs: bool = False
    original_inputs: bool = False
    layers_apart: bool = False
    learns_alike: bool = False


@dataclass(frozen=True)
class LayerSpec:
    """A layer without its weight.

    name: on-disk module name, such as `model.layers.0.self_attn.q_proj`. shape: (out_features, in_features), of an
    embedding (tokens, hidden_size). dtype: of the full-precision weight.
    """

    name: str
    shape: tuple[int, int]
    dtype: torch.dtype
    kind: Kind = "linear"


@dataclass(frozen=True)
class Layer:
    """One layer to quantize.

    name: on-disk module name, such as `model.layers.0.self_attn.q_proj`.
    weight: (out_features, in_features), in the checkpoint's dtype; never modified in place.
    """

    name: str
    weight: Tensor
    kind: Kind = "linear"

    @property
    def spec(self) -> LayerSpec:
        """The layer without its weight."""
        outputs, inputs = self.weight.shape
        return LayerSpec(self.name, (outputs, inputs), self.weight.dtype, self.kind)


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

    layer: name of the layer, of the block for `calibrate` and `settle`, of all layers of the group for `quantize_group`
    and where these two see a group.
    arguments: what the hook was given, by name. result: what it returned. seconds: how long it took.
    """

    hook: str
    layer: str
    arguments: Mapping[str, Any]
    result: Any
    seconds: float


@dataclass(frozen=True)
class Batch:
    """One calibration sample at the input of a block, or of a group of its layers, without padding.

    hidden_states: (1, tokens, hidden_size), of a group (1, tokens, in_features); tokens are patches in the vision
    tower.
    context: what else the block takes, its own for every sample: `position_embeddings`, (cos, sin) of (1, tokens,
    head_dim) each, in the decoder; lengths and sizes of the images in the vision tower.
    weights: how much each token counts in statistics, (tokens,) fp32, with mean 1 over all samples; None: all the same.
    See `hyocr_core.WeightedConfig`.
    reference: as hidden_states, on the full-precision path; None unless the method's spec asks for it.
    """

    name: str
    hidden_states: Tensor
    context: Mapping[str, Any]
    weights: Tensor | None = None
    reference: Tensor | None = None


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
    run: computes the block's output, (1, tokens, hidden_size), for one batch; where a method sees groups, the outputs
    of the group's layers side by side, (1, tokens, sum of out_features).
    configs: the options that hold for each of `layers`.
    smoothing: where scales can be folded, in order of execution.
    cached: modules whose outputs the attention keeps in its cache, by the layer they belong to: k_proj's and v_proj's
    name -> the module; empty where there is no cache.
    of_group: whether this is one group, and the batches are at its input.
    """

    index: int
    name: str
    module: nn.Module
    layers: Mapping[str, nn.Linear]
    groups: tuple[tuple[str, ...], ...]
    run: Callable[[Batch], Tensor]
    smoothing: tuple[Smoothing, ...] = ()
    cached: Mapping[str, nn.Module] = field(default_factory=dict)
    configs: Mapping[str, MethodConfig] = field(default_factory=dict)
    of_group: bool = False


class Model(Protocol):
    """A full-precision model as `prepare` sees it: never in memory as a whole."""

    @property
    def layers(self) -> Mapping[str, LayerSpec]:
        """Every linear, the embedding and a head of its own, by on-disk name, in model order."""
        ...

    @property
    def tensors(self) -> Mapping[str, tuple[tuple[int, ...], torch.dtype]]:
        """Every tensor of the checkpoint: on-disk name -> shape and dtype."""
        ...

    def read(self, *names: str) -> dict[str, Tensor]:
        """Tensors by their on-disk names, as copies."""
        ...

    def blocks(self) -> Iterator[AbstractContextManager[Block]]:
        """The decoder's blocks in order, each in memory inside `with` only; what is changed there is lost."""
        ...


@dataclass(frozen=True)
class Prepared:
    """What `prepare` decided about the whole model.

    overrides: options of layers, as the user's `overrides`, which come first.
    tensors: on-disk name -> what takes the place of the tensor, in its shape and dtype; the model must compute the
    same.
    config: keys of config.json to add or replace.
    """

    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    config: Mapping[str, Any] = field(default_factory=dict)
