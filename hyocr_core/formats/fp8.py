"""FP8 weights (E4M3): formats `fp8` and `compressed-tensors` (float-quantized). Imports torch only when it computes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.formats.base import Format, TensorLayout

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Activations = Literal["static", "dynamic"]

SCALE_DTYPES = ("bfloat16", "float32", "float16")


@dataclass(frozen=True)
class Fp8Weight:
    """codes: (N, K) float8_e4m3fn. scale: () for the whole weight, or (N, 1). input_scale: () of static activations.

    A weight is codes * scale; scales are in the dtype in which they are stored.
    """

    codes: Tensor
    scale: Tensor
    input_scale: Tensor | None = None

    def tensors(self) -> dict[str, Tensor]:
        """Copies under the names both formats use: weight, weight_scale and, for static activations, input_scale.

        A lone scale gets the shape (1,): Transformers refuses (), vLLM takes either.
        """
        named = {"weight": self.codes, "weight_scale": self.scale}
        if self.input_scale is not None:
            named["input_scale"] = self.input_scale
        return {name: (tensor if tensor.ndim else tensor.reshape(1)).clone() for name, tensor in named.items()}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> Fp8Weight:
        """Invert `tensors`; a lone scale may have the shape (), as others write it."""
        input_scale = tensors.get("input_scale")
        return cls(
            tensors["weight"], _scalar(tensors["weight_scale"]), None if input_scale is None else _scalar(input_scale)
        )

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """codes * scale, computed in fp32 and rounded once to `dtype`."""
        return (self.codes.float() * self.scale.float()).to(dtype)


class _Fp8(Format):
    """What both formats share."""

    codes: ClassVar[str] = "weight"

    activations: Activations

    @property
    def _per_channel(self) -> bool:
        return False

    def layout(self, shape: tuple[int, int]) -> dict[str, TensorLayout]:
        """Local name -> layout of every tensor of a linear of `shape` (N, K)."""
        tensors = {
            "weight": TensorLayout(shape, ("float8_e4m3fn",)),
            "weight_scale": TensorLayout((shape[0], 1) if self._per_channel else (), SCALE_DTYPES),
        }
        if self.activations == "static":
            tensors["input_scale"] = TensorLayout((), SCALE_DTYPES)
        return tensors

    def linear_shape(self, codes: tuple[int, ...]) -> tuple[int, int]:
        """The (N, K) of a linear whose weight has this shape."""
        return codes[0], codes[1]

    @property
    def quantizes_inputs(self) -> bool:
        """Runtimes multiply in FP8."""
        return True

    def quantize_inputs(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return inputs (..., K) rounded to E4M3 with the static scale, or with one for each token."""
        from hyocr_core.kit import e4m3

        return e4m3.quantize_inputs(inputs, tensors["input_scale"] if self.activations == "static" else None)

    def _decode(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        return Fp8Weight.of(tensors).dequantized(dtype)


@dataclass(frozen=True)
class Fp8Format(_Fp8):
    """Format `fp8`: one scale per weight."""

    activations: Activations

    def quantization_config(self, names: QuantizedNames) -> dict[str, Any]:
        """Return what config.json says; it names every unquantized linear."""
        return {
            "quant_method": "fp8",
            "activation_scheme": self.activations,
            "ignored_layers": list(names.ignored),
        }


@dataclass(frozen=True)
class CompressedFp8Format(_Fp8):
    """Format `compressed-tensors` with FP8 weights: one scale per weight (`tensor`) or per output channel.

    kv_cache: runtimes are to keep keys and values in FP8; see `hyocr_core.formats.cache`.
    """

    weights: Literal["tensor", "channel"]
    activations: Activations
    kv_cache: bool = False

    @property
    def _per_channel(self) -> bool:
        return self.weights == "channel"

    def quantization_config(self, names: QuantizedNames) -> dict[str, Any]:
        """Return what config.json says; it names every unquantized linear."""
        eight = {"num_bits": 8, "type": "float", "symmetric": True}
        dynamic = self.activations == "dynamic"
        group = {
            "targets": ["Linear"],
            "weights": eight | {"dynamic": False, "strategy": self.weights},
            "input_activations": eight | {"dynamic": dynamic, "strategy": "token" if dynamic else "tensor"},
            "output_activations": None,
        }
        cache = {"kv_cache_scheme": eight | {"dynamic": False, "strategy": "tensor"}} if self.kv_cache else {}
        return {
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "quantization_status": "compressed",
            "ignore": list(names.ignored),
            "config_groups": {"group_0": group},
            **cache,
        }


def _scalar(scale: Tensor) -> Tensor:
    return scale.reshape(()) if scale.shape == (1,) else scale
