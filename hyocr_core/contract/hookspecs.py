"""The whole plugin contract. A method is a distribution with one entry point in the group `hyocr.methods`.

The entry point names a module (or an object) whose functions carry `@hookimpl`. N = out_features, K = in_features.
Required: `method_spec`, `quantize_layer`, `pack`, `unpack`, `checkpoint_config`, and `calibrate` for a method whose
spec says `needs_calibration`. The rest is optional.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import pluggy

from hyocr_core.contract.config import MethodConfig
from hyocr_core.contract.types import Batches, Block, Layer, MethodSpec, QuantizedLayer, QuantizedNames, Stats

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

    Called before any weight is read.
    """


@hookspec(firstresult=True)
def calibrate(block: Block, batches: Batches, config: MethodConfig) -> dict[str, Stats]:  # type: ignore[empty-body]
    """Collect the statistics of every layer of a block, by layer name; called once per block, in model order.

    Layers that share an input may share one Stats object. See `hyocr_core.observe_inputs`. Not called when the config's
    `needs_calibration` is false. Only a method whose spec says `rescales_block` may change the block's parameters here,
    and the block's output must stay the same; see `hyocr_core.kit.smoothing.fold`.
    """


@hookspec(firstresult=True)
def quantize_layer(layer: Layer, stats: Stats | None, config: MethodConfig) -> QuantizedLayer:  # type: ignore[empty-body]
    """Quantize one weight (N, K); `stats` is None when the method needs no calibration."""


@hookspec(firstresult=True)
def quantize_group(layers: Sequence[Layer], stats: Stats | None, config: MethodConfig) -> list[QuantizedLayer]:  # type: ignore[empty-body]
    """Optional. Quantize layers that share one input (q/k/v, gate/up) together, in the given order.

    For methods that share work or scales between them; without it `quantize_layer` is called for each.
    """


@hookspec(firstresult=True)
def pack(layer: QuantizedLayer, config: MethodConfig) -> dict[str, Tensor]:  # type: ignore[empty-body]
    """Return the checkpoint's tensors for one layer under local names (`qweight`, `scales`, ...), as copies."""


@hookspec(firstresult=True)
def unpack(tensors: dict[str, Tensor], config: MethodConfig) -> Tensor:  # type: ignore[empty-body]
    """Invert `pack`: the dequantized weight (N, K), bit for bit the `dequantized` of the packed layer."""


@hookspec(firstresult=True)
def quantize_inputs(inputs: Tensor, tensors: dict[str, Tensor], config: MethodConfig) -> Tensor:  # type: ignore[empty-body]
    """Optional. Return what a runtime's low-precision matmul sees of a layer's inputs (..., K), in their dtype.

    For methods whose runtimes quantize activations; `tensors` are the layer's packed ones.
    """


@hookspec(firstresult=True)
def checkpoint_config(names: QuantizedNames, config: MethodConfig) -> dict[str, Any]:  # type: ignore[empty-body]
    """Return the `quantization_config` of config.json."""
