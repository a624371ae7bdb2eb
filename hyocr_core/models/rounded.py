"""What a checkpoint's weights become when they are merely rounded: the floor that a quantization method has to beat."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.source import TensorSource
from hyocr_core.errors import CheckpointError
from hyocr_core.formats import Format
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.hunyuan_vl import HunYuanVL


class RoundedCheckpoint:
    """A full-precision checkpoint in which every linear that `quantized` quantizes is rounded to nearest in its format.

    Bits, groups and zero points are those of the format; scales span the full range of what shares them: nothing is
    calibrated, searched or folded. A format that quantizes inputs does so as in `quantized`, by its own static scales
    or by one for each token, so that what is left of a difference is due to the weights.
    Raises CheckpointError when `source` is quantized, `quantized` is not, hyocr cannot read its format, or it is
    another model.
    """

    def __init__(self, source: TensorSource, quantized: TensorSource) -> None:
        if not isinstance(source, CheckpointReader) or source.config.get("quantization_config"):
            raise CheckpointError(f"{source.folder}: is quantized; only full-precision weights can be rounded")
        if not isinstance(quantized, DequantizedCheckpoint):
            raise CheckpointError(f"{quantized.folder}: is not quantized: there is no format to round to nearest in")
        self._source = source
        self._quantized = quantized
        self._formats = _formats_of(quantized)
        self._names = _names(source, quantized)
        single = {name for name, theirs in self._names.items() if self._formats[theirs].shares_scale}
        self._sharing = _sharing(source, single) if single else {}
        self.folder = source.folder
        self.config = source.config
        self.tensors = source.tensors

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """The rounded linears: on-disk name -> (N, K)."""
        return {name: self._quantized.shapes[theirs] for name, theirs in self._names.items()}

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of these names, weights rounded; own copies."""
        return {name: self._rounded(name, tensor) for name, tensor in self._source.read(names).items()}

    def emulate(self, linears: Mapping[str, nn.Linear]) -> None:
        """Let these linears of a model, by on-disk name, see their inputs as the runtime's kernels do."""
        self._quantized.emulate({self._names[name]: linear for name, linear in linears.items() if name in self._names})

    def _rounded(self, name: str, tensor: Tensor) -> Tensor:
        layer = name.removesuffix(".weight")
        if layer not in self._names or layer == name:
            return tensor
        members = [f"{member}.weight" for member in self._sharing.get(layer, ())]
        written = self._formats[self._names[layer]]
        return written.nearest(tensor, list(self._source.read(members).values()))


def _formats_of(quantized: DequantizedCheckpoint) -> dict[str, Format]:
    """The format of every quantized linear, by its name in `quantized`."""
    try:
        stored = quantized.formats
    except CheckpointError as error:
        raise CheckpointError(f"{quantized.folder}: cannot round to nearest in its format: {error}") from error
    return {name: written for name in quantized.shapes if (written := stored.of(name)) is not None}


def _names(source: TensorSource, quantized: DequantizedCheckpoint) -> dict[str, str]:
    """The linears to round: on-disk name -> that in `quantized`, which may have others."""
    model, other = (HunYuanVL(weights, torch.device("meta")) for weights in (source, quantized))
    of_memory = {memory: disk for disk, memory in model.memory_names.items()}
    names = {}
    for name, shape in quantized.shapes.items():
        own = of_memory.get(other.memory_names[name])
        if own is None or model.linears.get(own) != shape:
            raise CheckpointError(f"{source.folder}: has no {name} of shape {list(shape)}, as the quantized one")
        names[own] = name
    return names


def _sharing(source: TensorSource, names: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Linear -> those that runtimes fuse with it into one weight, which then has one scale."""
    model, rounded = HunYuanVL(source, torch.device("meta")), set(names)
    groups = (
        tuple(name for name in group if name in rounded)
        for place in (*model.vision_blocks, *model.decoder_blocks)
        if place.wiring.fused
        for group in model.groups(place)
    )
    return {name: tuple(other for other in group if other != name) for group in groups for name in group}
