"""What every checkpoint format says of a quantized linear, N x K. Imports no torch."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.errors import CheckpointError
from hyocr_core.formats.bounds import Bound
from hyocr_core.formats.cache import CACHE_SCALES
from hyocr_core.formats.ignored import Ignored
from hyocr_core.formats.levels import Levels
from hyocr_core.formats.rules import Rule
from hyocr_core.formats.runtimes import Runtime

if TYPE_CHECKING:
    import torch
    from torch import Tensor

ENTRY_POINT_GROUP = "hyocr.formats"

_PLAIN = {"bfloat16", "float16", "float32"}
_ITEM_BYTES = {
    "int8": 1, "uint8": 1, "int32": 4, "int64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "float8_e4m3fn": 1
}  # fmt: skip


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
    """A way to store quantized linears: all that depends on it. Its dataclasses hold what config.json says of it.

    An entry point in the group `hyocr.formats` names the class and is called as the value of `quant_method` that means
    it; a format that is a config group of compressed-tensors derives from `CompressedFormat`.

    api_version: the number of the contract it was written for, as a literal.
    codes: the local name of the tensor that holds the codes; a linear that has it (in its dtype) is quantized.
    group_index: the local name of the tensor that says which group a channel is in; empty if there is none.
    """

    api_version: ClassVar[int]
    codes: ClassVar[str]
    group_index: ClassVar[str] = ""

    @classmethod
    @abstractmethod
    def read(cls, config: Mapping[str, Any]) -> Self:
        """Return the format that a quantization_config describes.

        Raises CheckpointError naming the key and value that is not read.
        """

    @classmethod
    @abstractmethod
    def ignored(cls, config: Mapping[str, Any]) -> Ignored:
        """Return the list of unquantized linears in a quantization_config; raises CheckpointError when it is none."""

    @classmethod
    @abstractmethod
    def usual(cls) -> Mapping[str, Format]:
        """Title -> the format with the settings that are usual: what `hyocr doctor` has a line for."""

    @classmethod
    def exceptions(cls, config: Mapping[str, Any]) -> Iterable[Rule]:  # noqa: ARG003
        """Yield what a quantization_config says of single layers, in place of what it says of all."""
        return ()

    @abstractmethod
    def quantization_config(self, names: QuantizedNames) -> dict[str, Any]:
        """Return what config.json says of a checkpoint in this format alone."""

    @property
    @abstractmethod
    def in_words(self) -> str:
        """How a linear is stored, for a table: `int4, groups of 128, symmetric`."""

    @abstractmethod
    def layout(self, shape: tuple[int, int]) -> dict[str, TensorLayout]:
        """Local name -> layout of every tensor of a linear of `shape` (N, K).

        Raises CheckpointError when the format cannot hold such a linear.
        """

    @abstractmethod
    def linear_shape(self, codes: tuple[int, ...]) -> tuple[int, int]:
        """The (N, K) of a linear whose tensor `codes` has this shape."""

    @abstractmethod
    def decode(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Return the weight (N, K) in `dtype` of tensors that keep the layout; see `dequantize`."""

    @abstractmethod
    def groups(self, shape: tuple[int, int]) -> int:
        """The scales that each output of a linear of `shape` (N, K) has; 1 also where all outputs share one."""

    @property
    @abstractmethod
    def quantizes_inputs(self) -> bool:
        """Whether runtimes quantize the inputs of a linear too."""

    @abstractmethod
    def quantize_inputs(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
        """Return what a runtime's matmul sees of the inputs (..., K) of the linear with these tensors."""

    @property
    @abstractmethod
    def bound(self) -> Bound:
        """How far a weight may be from the original one."""

    @abstractmethod
    def nearest(self, weight: Tensor, sharing: Iterable[Tensor] = ()) -> Tensor:
        """Return `weight` (N, K) rounded to nearest, in its own dtype, in which scales are stored.

        Scales span the full range of what shares them. sharing: the weights with which a single scale is shared.
        """

    @property
    @abstractmethod
    def shares_scale(self) -> bool:
        """Whether weights that runtimes fuse are rounded with one scale."""

    @property
    @abstractmethod
    def shared(self) -> tuple[str, ...]:
        """Local names of the lone values that must be the same for linears that runtimes fuse."""

    @property
    def fused(self) -> bool:
        """Whether runtimes make one weight of linears that share an input, which therefore must be stored alike."""
        return True

    @abstractmethod
    def value_problems(self, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Iterator[tuple[str, str]]:
        """Yield (local name, what is wrong) of tensors that keep the layout but hold what config.json rules out."""

    @abstractmethod
    def runtimes(self, shapes: Mapping[str, tuple[int, int]]) -> Iterable[Runtime]:
        """Say of vLLM on CPU, vLLM on CUDA and Transformers whether they load it, and of others that do.

        shapes: the linears', by name.
        """

    @property
    @abstractmethod
    def packages(self) -> tuple[str, ...]:
        """What Transformers needs to load it, by the name one imports."""

    @abstractmethod
    def must_unpack(self, shapes: Mapping[str, tuple[int, int]]) -> bool:
        """Whether Transformers loads it only if compressed-tensors dequantizes it; shapes: the linears', by name."""

    def levels(self, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Levels | None:  # noqa: ARG002
        """Where the weights (N, K) = `shape` of tensors that keep the layout stand; None where a format cannot say.

        `hyocr verify --original` finds with it what errors in whole steps give away: zero points, single codes.
        """
        return None

    def beside(self, folder: Path) -> Iterator[tuple[str, str]]:  # noqa: ARG002
        """Yield (file, what is wrong) of the files in a checkpoint's folder for runtimes that read no safetensors.

        `hyocr verify` asks once for each class of formats that the checkpoint has; nothing where a format has none.
        """
        return iter(())

    def dequantize(self, tensors: Mapping[str, Tensor], shape: tuple[int, int], dtype: torch.dtype) -> Tensor:
        """Return the weight (N, K) = `shape` in `dtype`; raises CheckpointError naming a tensor that does not fit.

        Scales are rounded to `dtype` first, where runtimes do that when they load them.
        """
        for problem in self.problems({name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}, shape):
            raise CheckpointError(problem)
        return self.decode(tensors, dtype)

    def holds_codes(self, name: str, dtype: torch.dtype) -> bool:
        """Whether a tensor of this local name and dtype makes its linear a quantized one."""
        return name == self.codes and not (name == "weight" and str(dtype).removeprefix("torch.") in _PLAIN)

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
