"""GPTQ (Frantar et al. 2022, arXiv 2210.17323) as pure functions on tensors.

All weights here are columns, (K, N): row k holds what input channel k contributes to the N outputs, so that a column of
the paper's W is contiguous and rows of W, being independent, can be those of several layers side by side.

The paper corrects the columns not yet quantized with the Cholesky factor of the inverse Hessian. The same codes come
from H = (U + I) D (U + I)^T, U strictly upper triangular: column k is rounded at w_k + sum_{j<k} e_j U_jk, where
e = w - q are the errors made so far (LDLQ, Chee et al. 2023, arXiv 2307.13304): one factorization and no inverse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import TYPE_CHECKING

import torch

from hyocr_core.kit.checks import is_finite
from hyocr_core.kit.threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_core.kit.grid import Grid

DAMPING_STEPS = (1.0, 10.0, 100.0, 1000.0)
"""The configured damping, then three times more of it."""

COLUMNS_AT_ONCE = 16
"""Columns corrected together for the errors of those of their block before them, which are read once for all."""


@dataclass(frozen=True)
class Solution:
    """codes: (K, N) uint8. damping: the share of the Hessian's mean diagonal that was added to it.

    condition: see `Factor`.
    """

    codes: Tensor
    damping: float
    condition: float


@dataclass(frozen=True)
class Factor:
    """What GPTQ needs of a damped Hessian H = (U + I) D (U + I)^T.

    feedback: U^T, (K, K) strictly lower triangular. pivots: D, (K,). damping: the share of the mean diagonal that was
    added. order: (K,) the sequence of the input channels in U; None for their own.
    """

    feedback: Tensor
    pivots: Tensor
    damping: float
    order: Tensor | None = None

    @property
    def condition(self) -> float:
        """max D / min D, which costs nothing: a lower bound of the ratio of H's largest eigenvalue to its smallest."""
        return (self.pivots.max() / self.pivots.min()).item()

    def solve(self, right: Tensor) -> Tensor:
        """Return H^-1 B, (K, N), of B = `right`, both with the input channels in their own order."""
        taken = right if self.order is None else right[self.order]
        above = torch.linalg.solve_triangular(self.feedback.T, taken, upper=True, unitriangular=True)
        above.div_(self.pivots[:, None])
        solved: Tensor = torch.linalg.solve_triangular(self.feedback, above, upper=False, unitriangular=True)
        return solved if self.order is None else torch.empty_like(solved).index_copy_(0, self.order, solved)

    def losses(self, errors: Tensor) -> Tensor:
        """Return e^T H e, (N,), of each column e of `errors` (K, N), the input channels in their own order."""
        taken = errors if self.order is None else errors[self.order]
        return torch.mv(torch.addmm(taken, self.feedback, taken).square_().T, self.pivots)


def solve(
    columns: Tensor, hessian: Tensor, grid: Grid, *, damp_percent: float, block_size: int, desc_act: bool
) -> Solution | None:
    """Quantize `columns` (K, N) fp32 on `grid`, minimising tr(E^T H E); no argument is modified.

    hessian: (K, K) fp32. desc_act: see `damped_factor`.
    Return None when the Hessian cannot be factorized even with the most damping.
    """
    factor = damped_factor(hessian, damp_percent=damp_percent, desc_act=desc_act)
    if factor is None:
        return None
    return Solution(quantize_columns(columns, factor, grid, block_size), factor.damping, factor.condition)


def damped_factor(hessian: Tensor, *, damp_percent: float, desc_act: bool) -> Factor | None:
    """Factorize a (K, K) fp32 Hessian, with more damping than asked for where it takes more; None if none is enough.

    desc_act: take the columns in falling order of its diagonal; each is quantized on its own group's grid.
    """
    order = torch.argsort(hessian.diagonal(), descending=True, stable=True) if desc_act else None
    ordered = hessian if order is None else hessian.index_select(0, order).index_select(1, order)
    for step in DAMPING_STEPS:
        factor = factorize(ordered, damp_percent * step)
        if factor is not None:
            return replace(factor, order=order)
    return None


def factorize(hessian: Tensor, damping: float) -> Factor | None:
    """Factorize H + damping * mean(diag H) * I.

    A channel that no input ever reached has an empty row and column in H, so it neither gives nor takes corrections and
    is rounded to nearest. Return None when H is not positive definite.
    """
    feedback, pivots, failed = factorize_each(hessian, damping)
    if failed.item() or not is_finite(feedback):
        return None
    return Factor(feedback, pivots, damping)


def factorize_each(hessians: Tensor, damping: float) -> tuple[Tensor, Tensor, Tensor]:
    """Factorize (..., K, K) Hessians as `factorize` does: feedback (..., K, K), pivots (..., K) and failed (...).

    failed: not zero where a Hessian is not positive definite; its feedback and pivots say nothing.
    """
    mean = hessians.diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    # A fresh copy each time: the factorization of an earlier attempt must not leak into this one.
    damped = hessians.flip(-2, -1)
    damped.diagonal(dim1=-2, dim2=-1).add_(torch.where(mean == 0, 1.0, mean) * damping)
    upper, failed = torch.linalg.cholesky_ex(damped, upper=True)
    lower = upper.flip(-2, -1)
    diagonal = lower.diagonal(dim1=-2, dim2=-1)
    roots = diagonal.clone()
    lower.div_(roots[..., None])
    diagonal.zero_()
    return lower, roots.square_(), failed


def quantize_columns(columns: Tensor, factor: Factor, grid: Grid, block_size: int) -> Tensor:
    """Round (K, N) columns one after the other, each corrected for the errors before it; return codes, (K, N) uint8.

    On a GPU of NVIDIA by one kernel for each block of columns, where Triton is installed.
    """
    if can_fuse(columns.device):
        from hyocr_core.kit.fused import quantize_columns_fused

        return quantize_columns_fused(columns, factor, grid, block_size)
    steps = torch.empty_like(columns)
    group_size = len(columns) // len(grid.scales)
    scales, zeros = grid.scales.float(), grid.zeros.float()
    groups = list(zip(scales, -zeros, grid.max_code - zeros, strict=True))

    def settle(channel: int, target: Tensor, error: Tensor) -> None:
        scale, least, most = groups[channel // group_size]
        step = torch.div(target, scale, out=steps[channel]).round_().clamp_(least, most)
        error.addcmul_(step, scale, value=-1)

    walk_columns(columns, factor, block_size, settle)
    return steps.view(len(groups), group_size, -1).add_(zeros[:, None]).to(torch.uint8).view(columns.shape)


def can_fuse(device: torch.device) -> bool:
    """Whether the loop over columns runs as a kernel there."""
    return device.type == "cuda" and find_spec("triton") is not None


def walk_columns(
    columns: Tensor, factor: Factor, block_size: int, settle: Callable[[int, Tensor, Tensor], None]
) -> None:
    """Call `settle(channel, target, error)` for one of the (K, N) fp32 `columns` after the other.

    channel: which column it is. target: (N,), the column corrected for the errors before it. error: (N,), the column;
    `settle` subtracts in place what it rounds the target to. block_size: columns between two updates of all others.
    """
    count, feedback, order = len(columns), factor.feedback, factor.order
    errors = columns.clone() if order is None else columns[order]
    channels: Sequence[int] = range(count) if order is None else order.tolist()
    for start in range(0, count, block_size):
        stop = min(start + block_size, count)
        targets = torch.addmm(errors[start:stop], feedback[start:stop, :start], errors[:start])
        with one_thread():
            for k in range(start, stop):
                first = k - (k - start) % COLUMNS_AT_ONCE
                if k == first:
                    end = min(k + COLUMNS_AT_ONCE, stop)
                    targets[k - start : end - start].addmm_(feedback[k:end, start:k], errors[start:k])
                target = targets[k - start]
                target.addmv_(errors[first:k].T, feedback[k, first:k])
                settle(channels[k], target, errors[k])
