"""Weights that a method replaced before it quantized them, turned back to where the original's are."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.contract.types import LayerSpec
from hyocr_core.errors import BadInputError
from hyocr_core.plugin.method import Method
from hyocr_core.plugin.registry import load_method
from hyocr_core.plugin.reported import reported_methods


class Basis:
    """What the method that `report` names does to undo its `prepare`.

    replaced: on-disk names of the tensors that it replaced.
    """

    def __init__(self, report: QuantReport | None) -> None:
        self.replaced = frozenset(report.prepared) if report is not None else frozenset()
        self._method: Method | None = None
        self._why = ""
        if report is None or not self.replaced:
            return
        try:
            method = load_method(report.method.selector)
            self._configs = {name: found.config for name, found in reported_methods(report).items()}
        except BadInputError as error:
            self._why = str(error)
            return
        if method.implements("original_basis"):
            self._method = method
        else:
            self._why = f"{method.entry} has no hook original_basis"

    def holds(self, layer: str) -> bool:
        """Whether a layer's weight is in the original's basis as it is."""
        return f"{layer}.weight" not in self.replaced

    def turned_back(self, layer: str, weight: Tensor) -> Tensor | None:
        """A dequantized weight (N, K) as the original has it; None for one that cannot be compared."""
        if self.holds(layer):
            return weight
        if self._method is None:
            return None
        outputs, inputs = weight.shape
        return self._method.original_basis(
            LayerSpec(layer, (outputs, inputs), weight.dtype), weight, self._configs[layer]
        )

    def notes(self, carried: int, quantized: int) -> Iterator[str]:
        """What was not compared with the original, and why; counts of tensors that were replaced."""
        if carried:
            yield f"{carried} tensors that are not quantized were replaced by the method and were not compared"
        if quantized and self._method is None:
            yield f"{quantized} quantized layers were replaced by the method and were not compared: {self._why}"
