"""What every checkpoint format can say of a quantized linear, N x K, beyond writing it. Imports no torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.errors import CheckpointError
from hyocr_core.formats.cache import CACHE_SCALES

if TYPE_CHECKING:
    import torch
    from torch import Tensor

SIXTEEN_BIT_FIRST = ("bfloat16", "float16", "float32")
"""Dtypes of the scales of integers: those of the checkpoint's other weights, which are mostly of 16 bits."""

_PLAIN = {"bfloat16", "float16", "float32"}
_ITEM_BYTES = {"int32": 4, "int64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1}


@dataclass(frozen=True)
class TensorLayout:
    """One tensor of a linear. dtypes: the allowed ones by torch's names, first the one that hyocr writes."""

    shape: tuple[int, ...]
    dtypes: tuple[str, ...]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _ITEM_BYTES[self.dtypes[0]]

    def problem(self, shape: tuple[int, ...], dtype: torch.dtype) -> str | None:
        """Why a stored tensor is not this one; a lone value may be stored as () and as (1,)."""
        found = str(dtype).removeprefix("torch.")
        if found not in self.dtypes:
            return f"is {found}, not {' or '.join(self.dtypes)}"
        if shape == self.shape or (self.shape == () and shape == (1,)):
            return None
        return f"has shape {list(shape)}, not {list(self.shape)}"


class Format(ABC):
    """A way to store quantized linears; its dataclasses hold what config.json says of it.

    codes: the local name of the tensor that holds the codes; a linear that has it (in its dtype) is quantized.
    """

    codes: ClassVar[str]

    @abstractmethod
    def layout(self, shape: tuple[int, int]) -> dict[str, TensorLayout]:
        """Local name -> layout of every tensor of a linear of `shape` (N, K).

        Raises CheckpointError when the format cannot hold such a linear.
        """

    @abstractmethod
    def linear_shape(self, codes: tuple[int, ...]) -> tuple[int, int]:
        """The (N, K) of a linear whose tensor `codes` has this shape."""

    @abstractmethod
    def quantization_config(self, names: QuantizedNames) -> dict[str, Any]:
        """Return what config.json says."""

    @abstractmethod
    def _decode(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Return the weight (N, K) of tensors that keep the layout."""

    def dequantize(self, tensors: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return the weight (N, K) = `shape` in `dtype`; raises CheckpointError naming a tensor that does not fit.

        Scales are rounded to `dtype` first, as runtimes do when they load them.
        """
        for problem in self.problems({name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}, shape):
            raise CheckpointError(problem)
        return self._decode(tensors, dtype)

    def holds_codes(self, name: str, dtype: torch.dtype) -> bool:
        """Whether a tensor of this local name and dtype makes its linear a quantized one."""
        return name == self.codes and not (name == "weight" and str(dtype).removeprefix("torch.") in _PLAIN)

    def groups(self, shape: tuple[int, int]) -> int:  # noqa: ARG002
        """The scales that each output of a linear of `shape` (N, K) has; 1 also where all outputs share one."""
        return 1

    @property
    def quantizes_inputs(self) -> bool:
        """Whether runtimes quantize the inputs of a linear too."""
        return False

    def quantize_inputs(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """Return what a runtime's matmul sees of the inputs (..., K) of the linear with these tensors."""
        return inputs

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Bytes of a linear on disk, as hyocr writes it."""
        return sum(tensor.nbytes for tensor in self.layout(shape).values())

    def problems(
        self, stored: Mapping[str, tuple[tuple[int, ...], torch.dtype]], shape: tuple[int, int]
    ) -> Iterator[str]:
        """Say of stored tensors, local name -> (shape, dtype), what does not fit a linear of `shape` (N, K).

        The scale of a cache may be among them in every format.
        """
        try:
            layout = self.layout(shape)
        except CheckpointError as error:
            yield str(error)
            return
        for name, expected in layout.items():
            if name in stored:
                if problem := expected.problem(*stored[name]):
                    yield f"{name} {problem}"
            else:
                yield f"{name} is missing"
        for name in stored:
            if name not in layout and name not in CACHE_SCALES.values():
                yield f"{name} is no tensor of this format"


class IntegerFormat(Format):
    """What formats of integer codes share. group_size: input channels with one scale; -1 is one group per output."""

    group_size: int

    def groups(self, shape: tuple[int, int]) -> int:
        """The scales of each output."""
        return group_count(shape[1], self.group_size)


def group_count(inputs: int, group_size: int) -> int:
    """The number of groups of a linear with so many input channels; CheckpointError unless they come out even."""
    return 1 if group_size == -1 else evenly(inputs, group_size, "its input channels do not fill groups")


def evenly(count: int, part: int, complaint: str) -> int:
    """count / part; CheckpointError when that leaves a rest."""
    if count % part:
        raise CheckpointError(f"{complaint}: {count} is not a multiple of {part}")
    return count // part


def words(count: int, bits: int) -> int:
    """The number of int32 that so many codes fill; CheckpointError unless they fill them whole."""
    return evenly(count, 32 // bits, "its codes do not fill int32")
