"""The method `plain8`: round to nearest, stored in the format of that name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hyocr_core import Layer, MethodConfig, MethodSpec, QuantizedLayer, QuantizedNames, Stats, hookimpl
from hyocr_format_plain8.plain8 import Plain8Format

if TYPE_CHECKING:
    from torch import Tensor


@hookimpl
def method_spec() -> MethodSpec:
    return MethodSpec("plain8", MethodConfig, "plain int8", api_version=1, needs_calibration=False)


@hookimpl
def quantize_layer(layer: Layer) -> QuantizedLayer:
    import torch

    scale = (layer.weight.float().abs().amax(1, keepdim=True) / 127).clamp(min=1e-6).to(layer.weight.dtype)
    codes = (layer.weight.float() / scale.float()).round().clamp(-128, 127).to(torch.int8)
    tensors = {"codes": codes, "scale": scale}
    return QuantizedLayer(layer.name, tensors, Plain8Format().decode(tensors, layer.weight.dtype))


@hookimpl
def pack(layer: QuantizedLayer) -> Stats:
    return {name: tensor.clone() for name, tensor in layer.tensors.items()}


@hookimpl
def unpack(tensors: Stats) -> Tensor:
    return Plain8Format().decode(tensors, tensors["scale"].dtype)


@hookimpl
def checkpoint_config(names: QuantizedNames) -> dict[str, Any]:
    return Plain8Format().quantization_config(names)
