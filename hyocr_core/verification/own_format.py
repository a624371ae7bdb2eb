"""A checkpoint in a format that no runtime hyocr knows has: only the method that wrote it can read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.contract.types import LayerSpec
from hyocr_core.errors import HyocrError
from hyocr_core.plugin.registry import load_method


class OwnFormat:
    """What takes the place of a `Format`: the hooks of the installed method, for the layers that the report names.

    Raises MethodError when the method is not installed, ConfigError when it refuses the options in the report.
    """

    def __init__(self, report: QuantReport) -> None:
        self.method = load_method(f"{report.method.distribution}:{report.method.name}")
        self._config = self.method.config(report.method.config)
        self._layers = {layer.name for layer in report.layers}

    def holds(self, layer: str) -> bool:
        """Whether the tensors of a linear, by on-disk name, are packed ones, whatever they are called."""
        return layer in self._layers

    def problems(self, layer: str, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Iterator[str]:
        """Say why these tensors are no weight of this shape (N, K)."""
        try:
            found = tuple(self.method.unpack(tensors, LayerSpec(layer, shape, torch.bfloat16), self._config).shape)
        except HyocrError as error:
            yield str(error)
            return
        if found != shape:
            yield f"unpacks to {list(found)}, config.json asks for {list(shape)}"

    def dequantize(self, tensors: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return the weight (N, K) in `dtype`."""
        return self.method.unpack(tensors, LayerSpec("", shape, torch.bfloat16), self._config).to(dtype)

    def groups(self, _shape: tuple[int, int]) -> int:
        """The groups of an output that are compared with the original each on its own: one."""
        return 1

    @property
    def note(self) -> str:
        """What is not checked, and why."""
        return (
            f"{self.method.entry} unpacked its own format; what runtimes ask of its tensors and of config.json is not "
            "known to hyocr and was not checked"
        )
