"""SmoothQuant (Xiao et al. 2022, arXiv 2211.10438): W8A8 in int8, per-channel weights and per-token activations.

Activations have outliers in a few channels, weights have none: dividing the inputs of channel k by
s_k = max|x_k|^alpha / max|w_k|^(1 - alpha) and multiplying the weights by it shares the range between both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hyocr_core import (
    Batches,
    Block,
    Collected,
    Layer,
    LayerSpec,
    MethodConfig,
    MethodSpec,
    QuantizedLayer,
    QuantizedNames,
    Stat,
    Stats,
    hookimpl,
)
from hyocr_core.formats import IntQuantizedFormat, ScaledWeight
from hyocr_core.formats import checkpoint_config as written_config

if TYPE_CHECKING:
    from torch import Tensor

ON_DISK = IntQuantizedFormat("channel", "dynamic")


class SmoothQuantConfig(MethodConfig):
    """Options of the method."""

    format: Literal["compressed-tensors"] = Field("compressed-tensors", description="checkpoint format to write")
    alpha: float = Field(0.5, ge=0, le=1, description="how much of the activations' range goes to the weights")


@hookimpl
def method_spec() -> MethodSpec:
    summary = "8-bit integers for weights and activations, smoothed"
    return MethodSpec("smoothquant", SmoothQuantConfig, summary, api_version=1, rescales_block=True)


@hookimpl
def calibrate(block: Block, batches: Batches) -> dict[str, Collected]:
    import torch

    from hyocr_core.kit import by_layer, observe_inputs

    largest: dict[tuple[str, ...], Tensor] = {}

    def observe(names: tuple[str, ...], inputs: Tensor) -> None:
        found = inputs.abs().amax(0).float()
        largest[names] = torch.maximum(largest[names], found) if names in largest else found

    observe_inputs(block, batches, observe)
    return by_layer(block.groups, {names: {"largest": Stat(found, "max")} for names, found in largest.items()})


@hookimpl
def settle(block: Block, stats: dict[str, Stats], config: SmoothQuantConfig) -> dict[str, Stats]:
    import torch

    from hyocr_core.kit import fold

    for smoothing in block.smoothing:
        inputs = stats[smoothing.targets[0]]["largest"].clamp(min=1e-5)
        weights = torch.cat([block.layers[name].weight for name in smoothing.targets]).abs().amax(0).float()
        scales = inputs**config.alpha / weights.clamp(min=1e-5) ** (1 - config.alpha)
        # A channel of the source may feed several of the targets: it gets the mean of their scales.
        channels = smoothing.channels.to(scales.device)
        count = len(smoothing.source.get_parameter("weight"))
        sums = torch.zeros(count, device=scales.device).index_add_(0, channels, scales)
        fold(block, smoothing, sums / torch.bincount(channels, minlength=count).clamp(min=1))
    return stats


@hookimpl
def quantize_layer(layer: Layer) -> QuantizedLayer:
    import torch

    from hyocr_core.kit import check_weights

    check_weights([layer])
    largest = layer.weight.abs().amax(1, keepdim=True).float()
    scale = torch.where(largest == 0, 1, largest / 127).to(layer.weight.dtype)
    packed = ScaledWeight(ON_DISK.encode(layer.weight.float() / scale.float()), scale)
    return QuantizedLayer(layer.name, packed.tensors(), packed.dequantized(layer.weight.dtype))


@hookimpl
def pack(layer: QuantizedLayer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in layer.tensors.items()}


@hookimpl
def unpack(tensors: dict[str, Tensor], layer: LayerSpec) -> Tensor:
    return ScaledWeight.of(tensors).dequantized(layer.dtype)


@hookimpl
def quantize_inputs(inputs: Tensor, tensors: dict[str, Tensor]) -> Tensor:
    return ON_DISK.quantize_inputs(inputs, tensors)


@hookimpl
def checkpoint_config(names: QuantizedNames, layers: Mapping[str, SmoothQuantConfig]) -> dict[str, Any]:
    return written_config(dict.fromkeys(layers, ON_DISK), names)
