"""A checkpoint in a format that nobody registered: only the method that wrote it can read it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from hyocr_core.checkpoint.quant_report import FILE_NAME, QuantReport, read_report
from hyocr_core.contract.types import LayerSpec
from hyocr_core.errors import BadInputError, CheckpointError, HyocrError
from hyocr_core.formats import ANY_BITS, Bound
from hyocr_core.plugin.registry import load_method
from hyocr_core.plugin.reported import reported_methods


class OwnFormat:
    """What takes the place of a `Format`: the hooks of the installed method, for the layers that the report names.

    shapes: their (N, K), by on-disk name. dtype: of the full-precision weights.
    Raises MethodError when the method is not installed, ConfigError when it refuses the options in the report.
    """

    bound: Bound = ANY_BITS

    def __init__(self, report: QuantReport, dtype: torch.dtype) -> None:
        self.method = load_method(report.method.selector)
        self._dtype = dtype
        self.shapes = {layer.name: layer.shape for layer in report.layers}
        self._configs = {name: found.config for name, found in reported_methods(report).items()}

    def unpack(self, layer: str, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return the weight (N, K) of a linear, by on-disk name, in the dtype that the method gives it."""
        spec = LayerSpec(layer, self.shapes[layer], self._dtype)
        return self.method.unpack(tensors, spec, self._configs[layer])

    def quantizes_inputs(self, layer: str) -> bool:  # noqa: ARG002
        """Whether the method says what a runtime's matmul sees of the inputs."""
        return self.method.implements("quantize_inputs")

    def quantize_inputs(self, inputs: Tensor, tensors: Mapping[str, Tensor], layer: str) -> Tensor:
        """Return what a runtime's matmul sees of the inputs (..., K) of a linear, by on-disk name."""
        return self.method.quantize_inputs(inputs, tensors, self._configs[layer], layer)

    def problems(self, layer: str, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Iterator[str]:
        """Say why these tensors are no weight of this shape (N, K)."""
        if self.shapes[layer] != shape:
            yield f"is {list(self.shapes[layer])} in the report, config.json asks for {list(shape)}"
            return
        try:
            self.unpack(layer, tensors)
        except HyocrError as error:
            yield str(error)

    @property
    def note(self) -> str:
        """What is not checked, and why."""
        return (
            f"{self.method.entry} unpacked its own format; what runtimes ask of its tensors and of config.json is not "
            "known to hyocr and was not checked"
        )


def own_format(folder: Path, dtype: torch.dtype, error: CheckpointError) -> OwnFormat:
    """Let the method read that the report in `folder` names; `error` says why no installed format does.

    Raises CheckpointError with both reasons when it cannot.
    """
    if not (folder / FILE_NAME).is_file():
        raise CheckpointError(f"{folder}: {error}") from error
    try:
        return OwnFormat(read_report(folder), dtype)
    except BadInputError as why:
        raise CheckpointError(f"{folder}: {error}, and what wrote it cannot be asked: {why}") from why
