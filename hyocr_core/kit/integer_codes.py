"""Layers of integer codes on a grid: what every method that rounds weights to one does before and after."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from hyocr_core.contract.types import Layer, QuantizedLayer
from hyocr_core.errors import RunError
from hyocr_core.kit.checks import is_finite
from hyocr_core.kit.grid import Grid, decode, round_to_nearest
from hyocr_core.kit.output_error import measured, relative_errors

if TYPE_CHECKING:
    from torch import Tensor


class IntegerStorage(Protocol):
    """A format of integer codes, such as `hyocr_core.formats.GptqFormat`."""

    def pack(self, codes: Tensor, grid: Grid) -> dict[str, Tensor]: ...

    def unpack(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Grid]: ...


def integer_layer(layer: Layer, codes: Tensor, grid: Grid) -> QuantizedLayer:
    """Return the layer with these codes (K, N) uint8; raise RunError when its weights overflow their dtype."""
    dequantized = decode(codes, grid).T.contiguous()
    if not is_finite(dequantized):
        raise RunError(f"{layer.name}: its largest weights overflow {layer.weight.dtype} once quantized")
    return QuantizedLayer(layer.name, {"codes": codes, "scales": grid.scales, "zeros": grid.zeros}, dequantized)


def pack_integers(layer: QuantizedLayer, storage: IntegerStorage, bits: int) -> dict[str, Tensor]:
    """Return the tensors of what `integer_layer` made, as copies under the local names of the format."""
    grid = Grid(layer.tensors["scales"], layer.tensors["zeros"], 2**bits - 1)
    return storage.pack(layer.tensors["codes"], grid)


def unpack_integers(tensors: Mapping[str, Tensor], storage: IntegerStorage) -> Tensor:
    """Invert `pack_integers`: the dequantized weight (N, K)."""
    return decode(*storage.unpack(tensors)).T.contiguous()


def output_errors(columns: Tensor, codes: Tensor, grid: Grid, hessian: Tensor) -> dict[str, float]:
    """Return the metrics `output_error` and `output_error_rtn` of a layer: of `codes`, and of rounding to nearest.

    Each is the Frobenius norm of the change in the outputs on the calibration inputs relative to the outputs'.
    columns: (K, N) fp32. codes: (K, N) uint8. hessian: (K, K) fp32.
    """
    picked = measured(columns.shape[1])
    columns, codes = columns[:, picked].contiguous(), codes[:, picked].contiguous()
    grid = replace(grid, scales=grid.scales[:, picked], zeros=grid.zeros[:, picked])
    values = (decode(codes, grid), decode(round_to_nearest(columns, grid), grid))
    errors = relative_errors(columns, values, hessian)
    return dict(zip(("output_error", "output_error_rtn"), errors, strict=True))
