"""A quantized checkpoint seen as a full-precision one: every quantized linear is unpacked when it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hyocr_core.checkpoint.reader import CheckpointReader, TensorInfo
from hyocr_core.checkpoint.report import read_report
from hyocr_core.config import MethodConfig
from hyocr_core.errors import CheckpointError
from hyocr_core.registry import Method, load_method


class DequantizedCheckpoint:
    """The tensors of a checkpoint written by hyocr, its packed linears presented as `NAME.weight`."""

    def __init__(self, reader: CheckpointReader) -> None:
        report = read_report(reader.folder)
        self._reader = reader
        self._method = load_method(f"{report.method.distribution}:{report.method.name}")
        self._config = self._method.config(report.method.config)
        self._shapes = {layer.name: layer.shape for layer in report.layers}
        self._packed = packed_tensors(reader.tensors, self._shapes)
        self.folder = reader.folder
        self.config = reader.config
        self.tensors = self._presented()

    def _presented(self) -> Mapping[str, TensorInfo]:
        packed = {name for names in self._packed.values() for name in names}
        tensors = {name: info for name, info in self._reader.tensors.items() if name not in packed}
        for layer, names in self._packed.items():
            if not names:
                raise CheckpointError(f"{self.folder}: {layer} is reported as quantized but has no tensors")
            shape = self._shapes[layer]
            shard = self._reader.tensors[names[0]].shard
            tensors[f"{layer}.weight"] = TensorInfo(shape, torch.bfloat16, 2 * shape[0] * shape[1], shard)
        return tensors

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of these names, packed linears unpacked; own copies."""
        result, plain = {}, []
        for name in names:
            layer = name.removesuffix(".weight")
            if layer in self._packed:
                tensors = self._reader.read(self._packed[layer])
                result[name] = unpack_layer(layer, tensors, self._method, self._config)
            else:
                plain.append(name)
        return result | self._reader.read(plain)

    def emulate(self, linears: Mapping[str, nn.Linear]) -> None:
        """Let these linears of a model, by on-disk name, see their inputs as the runtime's kernels do."""
        quantized = {name: linear for name, linear in linears.items() if name in self._packed}
        if self._method.quantizes_inputs:
            names = [name for layer in quantized for name in self._packed[layer]]
            emulate_inputs(quantized, self._reader.read(names), self._method, self._config)


def packed_tensors(names: Iterable[str], layers: Iterable[str]) -> dict[str, list[str]]:
    """Layer -> the names of its packed tensors, `LAYER.something`; a bias is never packed."""
    packed: dict[str, list[str]] = {layer: [] for layer in layers}
    for name in names:
        layer, _, local = name.rpartition(".")
        if layer in packed and local != "bias":
            packed[layer].append(name)
    return packed


def unpack_layer(layer: str, tensors: Mapping[str, Tensor], method: Method, config: MethodConfig) -> Tensor:
    """The dequantized weight of `layer` from checkpoint tensors named `LAYER.something`."""
    local = {name.removeprefix(f"{layer}."): value for name, value in tensors.items()}
    return method.unpack(local, config)


def emulate_inputs(
    linears: Mapping[str, nn.Linear], tensors: Mapping[str, Tensor], method: Method, config: MethodConfig
) -> list[RemovableHandle]:
    """Let each linear see its inputs as `method`'s `quantize_inputs` leaves them; nothing for a method without it.

    linears: by on-disk name. tensors: checkpoint tensors named `LINEAR.something`.
    """
    if not method.quantizes_inputs:
        return []
    packed = packed_tensors(tensors, linears)

    def quantizer(layer: str) -> Callable[[nn.Module, tuple[Any, ...]], tuple[Any, ...]]:
        device = linears[layer].weight.device
        local = {name.removeprefix(f"{layer}."): tensors[name].to(device) for name in packed[layer]}
        return lambda _module, args: (method.quantize_inputs(args[0], local, config, layer), *args[1:])

    return [linears[layer].register_forward_pre_hook(quantizer(layer)) for layer in linears if packed[layer]]
