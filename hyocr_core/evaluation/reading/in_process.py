"""The backends that read in this process, so that next-token distributions can be compared."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from hyocr_core.contract.backend import AnyBackend
from hyocr_core.errors import BadInputError
from hyocr_core.evaluation.reading.local import Entry
from hyocr_core.evaluation.reading.opened import Opened
from hyocr_core.evaluation.scores.result import Runtime
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.runtimes.native import check_native


class InProcess(AnyBackend, ABC):
    """Transformers' own model in this process, driven batch by batch by the core."""

    api_version: ClassVar[int] = 1

    @classmethod
    @abstractmethod
    def runtime(cls, *, quantized: bool) -> Runtime:
        """What a result says that such a checkpoint was read by."""

    @classmethod
    @abstractmethod
    def entry(cls, opened: Opened) -> Entry:
        """The checkpoint, to be loaded when all pages are checked. Raises BadInputError if it cannot be."""


class Dequant(InProcess):
    """Weights as hyocr unpacks them, quantized activations emulated; works for every method."""

    @classmethod
    def runtime(cls, *, quantized: bool) -> Runtime:
        return "dequant" if quantized else "transformers"

    @classmethod
    def entry(cls, opened: Opened) -> Entry:
        return Entry(opened.source, opened.weights, opened.folder)


class Transformers(InProcess):
    """What Transformers itself makes of the checkpoint, with its kernels."""

    @classmethod
    def runtime(cls, *, quantized: bool) -> Runtime:  # noqa: ARG003
        return "transformers"

    @classmethod
    def entry(cls, opened: Opened) -> Entry:
        weights = opened.weights
        if isinstance(weights, DequantizedCheckpoint):
            try:
                check_native(weights.formats, weights.shapes)
            except BadInputError as error:
                raise type(error)(f"{opened.folder}: {error}; --backend dequant reads it without") from error
        return Entry(opened.source, weights, opened.folder, native=True)
