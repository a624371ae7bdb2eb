"""The whole plugin contract. A method is a distribution with one entry point in the group `hyocr.methods`.

The entry point names a module (or an object) whose functions carry `@hookimpl`. N = out_features, K = in_features.
Required: `method_spec`, `quantize_layer`, `pack`, `unpack`, `checkpoint_config`, and `calibrate` for a method whose
spec says `needs_calibration`. The rest is optional. A function takes those of its hook's arguments that it needs.

config: the options that hold for the layer at work; where a hook sees several layers, those of the run.
seed: the run's; a method that draws random numbers seeds a generator of its own with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from hyocr_core.contract.config import MethodConfig
from hyocr_core.contract.types import (
    Batches,
    Block,
    Collected,
    Layer,
    LayerSpec,
    MethodSpec,
    Model,
    Prepared,
    QuantizedLayer,
    QuantizedNames,
    Stats,
)

if TYPE_CHECKING:
    from torch import Tensor

ENTRY_POINT_GROUP = "hyocr.methods"

hookspec = pluggy.HookspecMarker("hyocr")
hookimpl = pluggy.HookimplMarker("hyocr")


@hookspec(firstresult=True)
def method_spec() -> MethodSpec:  # type: ignore[empty-body]
    """Describe the method. Must not import torch: listing methods and printing schemas stay instant."""


@hookspec(firstresult=True)
def check_layers(shapes: Mapping[str, tuple[int, int]], config: MethodConfig) -> None:
    """Optional. Refuse, by ConfigError, layers (name -> (N, K)) that the method or its format cannot hold.

    Called before any weight is read, once for each set of options that layers have.
    """


@hookspec(firstresult=True)
def prepare(model: Model, batches: Batches, config: MethodConfig, seed: int) -> Prepared | None:
    """Optional. Look at the whole model once and decide on it, before its first block.

    batches: the samples at the input of the decoder; none when the options need no calibration. With tensors replaced
    the model must predict the same, which the core checks on one sample. A resumed run gets what the first one got.
    """


@hookspec(firstresult=True)
def calibrate(block: Block, batches: Batches, config: MethodConfig) -> dict[str, Collected]:  # type: ignore[empty-body]
    """Gather sums and maxima over the samples for every layer of a block, by layer name.

    Called once per block, in model order, or once per group of layers where the spec's `inputs` says so. Layers that
    share an input may share one object. Must leave the block as it is. See `hyocr_core.kit.observe_inputs`. Not called
    when the config's `needs_calibration` is false.
    """


@hookspec(firstresult=True)
def settle(  # type: ignore[empty-body]
    block: Block, batches: Batches, stats: dict[str, Stats], config: MethodConfig, seed: int
) -> dict[str, Stats]:
    """Optional. Make of merged sums what `quantize_layer` needs: divide, search, fold.

    stats: the values that `calibrate` gathered, merged over all samples; they may be changed in place. Only a method
    whose spec says `rescales_block` may change the block's parameters here, and the block's output must stay the same;
    see `hyocr_core.kit.fold`.
    """


@hookspec(firstresult=True)
def quantize_layer(layer: Layer, stats: Stats | None, config: MethodConfig, seed: int) -> QuantizedLayer:  # type: ignore[empty-body]
    """Quantize one weight (N, K); `stats` is None when the method needs no calibration."""


@hookspec(firstresult=True)
def quantize_group(  # type: ignore[empty-body]
    layers: Sequence[Layer], stats: Stats | None, config: MethodConfig, seed: int
) -> list[QuantizedLayer]:
    """Optional. Quantize layers that share one input (q/k/v, gate/up) together, in the given order.

    For methods that share work or scales between them; without it `quantize_layer` is called for each.
    """


@hookspec(firstresult=True)
def pack(layer: QuantizedLayer, config: MethodConfig) -> dict[str, Tensor]:  # type: ignore[empty-body]
    """Return the checkpoint's tensors for one layer under local names (`qweight`, `scales`, ...), as copies."""


@hookspec(firstresult=True)
def unpack(tensors: dict[str, Tensor], layer: LayerSpec, config: MethodConfig) -> Tensor:  # type: ignore[empty-body]
    """Invert `pack`: the dequantized weight (N, K), bit for bit the `dequantized` of the packed layer.

    The core unpacks every layer that it has packed, and ends the run when they differ.
    """


@hookspec(firstresult=True)
def quantize_inputs(inputs: Tensor, tensors: dict[str, Tensor], config: MethodConfig) -> Tensor:  # type: ignore[empty-body]
    """Optional. Return what a runtime's low-precision matmul sees of a layer's inputs (..., K), in their dtype.

    For methods whose runtimes quantize activations; `tensors` are the layer's packed ones.
    """


@hookspec(firstresult=True)
def checkpoint_config(  # type: ignore[empty-body]
    names: QuantizedNames, layers: Mapping[str, MethodConfig], config: MethodConfig
) -> dict[str, Any]:
    """Return the `quantization_config` of config.json.

    layers: in-memory name of each quantized layer -> the options that hold for it. Raises ConfigError when the format
    has no room for options that differ; see `hyocr_core.formats.checkpoint_config`.
    """


@hookspec(firstresult=True)
def original_basis(layer: LayerSpec, weight: Tensor, config: MethodConfig) -> Tensor:  # type: ignore[empty-body]
    """Optional. Turn a dequantized weight (N, K) back into the basis of the original checkpoint.

    For methods whose `prepare` replaces weights by others that compute the same, rotated ones for instance, so that
    `hyocr verify --original` can compare.
    """


@hookspec(firstresult=True)
def export(checkpoint: Path, folder: Path, config: MethodConfig) -> None:
    """Optional. Write files for a runtime that reads no safetensors, such as a GGUF file.

    checkpoint: the finished checkpoint, to read. folder: an empty one, the only place to write; what is in it at the
    end is published in the checkpoint's folder.
    """
