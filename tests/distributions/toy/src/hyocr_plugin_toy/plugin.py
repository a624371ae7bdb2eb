"""Round-to-nearest int8, written as compressed-tensors `pack-quantized`. N = out_features, K = in_features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from hyocr_core import (
    ConfigError,
    Layer,
    MethodConfig,
    MethodSpec,
    QuantizedLayer,
    QuantizedNames,
    Stats,
    hookimpl,
)

if TYPE_CHECKING:
    from torch import Tensor


class ToyConfig(MethodConfig):
    """Options of the toy method."""

    format: Literal["compressed-tensors"] = Field("compressed-tensors", description="checkpoint format to write")
    clip: float = Field(1.0, gt=0, le=1, description="share of the largest weight that the scale covers")


@hookimpl
def method_spec() -> MethodSpec:
    return MethodSpec("toy", ToyConfig, "round-to-nearest int8", api_version=1, needs_calibration=False)


@hookimpl
def check_layers(shapes: Mapping[str, tuple[int, int]]) -> None:
    for name, (_, width) in shapes.items():
        if width % 4:
            raise ConfigError(f"{name} is {width} wide; int8 packs four columns into one int32")


@hookimpl
def quantize_layer(layer: Layer, config: ToyConfig) -> QuantizedLayer:
    weight = layer.weight.float()
    peak = weight.abs().amax(dim=1, keepdim=True).clamp(min=1e-6)
    scale = (peak * config.clip / 127).to(layer.weight.dtype)
    codes = (weight / scale.float()).round().clamp(-127, 127)
    dequantized = (codes * scale.float()).to(layer.weight.dtype)
    error = float((dequantized.float() - weight).norm() / weight.norm().clamp(min=1e-6))
    return QuantizedLayer(layer.name, {"codes": codes.char(), "scale": scale}, dequantized, {"weight_error": error})


@hookimpl
def pack(layer: QuantizedLayer) -> Stats:
    import torch

    codes = layer.tensors["codes"]
    unsigned = (codes.short() + 128).to(torch.uint8)
    return {
        "weight_packed": unsigned.view(torch.int32),
        "weight_scale": layer.tensors["scale"].clone(),
        "weight_shape": torch.tensor(codes.shape),
    }


@hookimpl
def unpack(tensors: Stats) -> Tensor:
    import torch

    codes = tensors["weight_packed"].view(torch.uint8).short() - 128
    scale = tensors["weight_scale"]
    return (codes.float() * scale.float()).to(scale.dtype)


@hookimpl
def checkpoint_config(names: QuantizedNames) -> dict[str, Any]:
    weights = {"num_bits": 8, "type": "int", "symmetric": True, "dynamic": False, "strategy": "channel"}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": list(names.ignored),
        "config_groups": {"group_0": {"targets": ["Linear"], "weights": weights}},
    }
