"""What formats share whose codes are integers in int32, with a scale for each group. Imports no torch."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

from hyocr_core.errors import CheckpointError
from hyocr_core.formats.base import Format
from hyocr_core.formats.bounds import EIGHT_BITS, FOUR_BITS, Bound
from hyocr_core.formats.levels import Levels
from hyocr_core.formats.runtimes import VLLM_CPU, VLLM_CUDA, Runtime, answer, cpu_refusal
from hyocr_core.wording import listed, tr

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from hyocr_core.kit.grid import Grid

SIXTEEN_BIT_FIRST = ("bfloat16", "float16", "float32")
"""Dtypes of the scales of integers: those of the checkpoint's other weights, which are mostly of 16 bits."""
BITS = (4, 8)
_BOUNDS = {4: FOUR_BITS, 8: EIGHT_BITS}


class IntegerFormat(Format):
    """bits: 4 or 8. group_size: input channels with one scale; -1 is one group per output. sym: no zero points.

    scales: the local name of the scales.
    """

    scales: ClassVar[str]

    bits: int
    group_size: int
    sym: bool

    @property
    def in_words(self) -> str:
        """Bits, groups and zero points."""
        zeros = tr("symmetric") if self.sym else tr("zero points")
        return listed([f"int{self.bits}", groups_in_words(self.group_size), zeros])

    @abstractmethod
    def pack(self, codes: Tensor, grid: Grid) -> dict[str, Tensor]:
        """Return the tensors of a linear by local name, all copies; codes: (K, N) uint8."""

    @abstractmethod
    def unpack(self, tensors: Mapping[str, Tensor]) -> tuple[Tensor, Grid]:
        """Invert `pack`: return codes and grid."""

    def decode(self, tensors: Mapping[str, Tensor], dtype: torch.dtype) -> Tensor:
        """Return the weight (N, K), its scales rounded to `dtype` first."""
        from hyocr_core.kit.grid import decode

        return decode(*self.unpack({**tensors, self.scales: tensors[self.scales].to(dtype)})).T.contiguous()

    def levels(self, tensors: Mapping[str, Tensor], shape: tuple[int, int]) -> Levels | None:  # noqa: ARG002
        """A step is the scale of the group."""
        codes, grid = self.unpack(tensors)
        steps = grid.scales.float().repeat_interleave(len(codes) // len(grid.scales), 0)
        return Levels(steps.T, (codes == 0).T, (codes == grid.max_code).T)

    def groups(self, shape: tuple[int, int]) -> int:
        """The scales of each output."""
        return group_count(shape[1], self.group_size)

    @property
    def quantizes_inputs(self) -> bool:
        """Runtimes multiply in the dtype of the inputs."""
        return False

    def quantize_inputs(self, inputs: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:  # noqa: ARG002
        """Return the inputs."""
        return inputs

    @property
    def bound(self) -> Bound:
        """By the bits."""
        return _BOUNDS[self.bits]

    def nearest(self, weight: Tensor, sharing: Iterable[Tensor] = ()) -> Tensor:  # noqa: ARG002
        """Return `weight` (N, K) rounded to nearest group by group, in its own dtype."""
        from hyocr_core.kit.grid import decode, fit_grid, round_to_nearest

        columns = weight.T.contiguous().float()
        grid = fit_grid(columns, weight.dtype, bits=self.bits, group_size=self.group_size, sym=self.sym, mse=False)
        return decode(round_to_nearest(columns, grid), grid).T.contiguous()

    @property
    def shares_scale(self) -> bool:
        """Each output has scales of its own."""
        return False

    @property
    def shared(self) -> tuple[str, ...]:
        """Nothing."""
        return ()

    def runtimes(self, shapes: Mapping[str, tuple[int, int]]) -> Iterable[Runtime]:
        """Say of each runtime whether it loads it."""
        refusal = self._vllm_refusal
        on_cpu = cpu_refusal(self.bits, shapes) if refusal is None else refusal
        return answer(VLLM_CPU, on_cpu), answer(VLLM_CUDA, refusal), self._transformers

    @property
    @abstractmethod
    def _vllm_refusal(self) -> str | None:
        """Why vLLM does not load it anywhere."""

    @property
    @abstractmethod
    def _transformers(self) -> Runtime:
        """Whether Transformers loads it."""


def groups_in_words(size: int) -> str:
    """What shares a scale."""
    return tr("per output channel") if size == -1 else tr("groups of {size}", size=size)


def wrong_zeros(zeros: Tensor, bits: int, because: str) -> Iterator[str]:
    """Say what is wrong with zero points that should be in the middle, because config.json says so."""
    wrong = zeros[zeros != 2 ** (bits - 1)]
    if len(wrong):
        yield f"holds the zero point {wrong[0].item()}, but {because}, which means {2 ** (bits - 1)}"


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
