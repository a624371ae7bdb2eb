"""The grid that GPTQ itself does best on: each group is solved alone at several clipping ranges.

What the nearest rounding loses says little of what is left once later channels have taken up earlier ones' errors. All
groups and ranges are solved side by side, for a group has few channels and each would be a small operation of its own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from hyocr_core.kit.grid import Grid, clipped_grid
from hyocr_core.kit.solver import factorize_each
from hyocr_core.kit.threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor

RATIOS = (1.0, 0.9, 0.8, 0.7)
"""Shares of a group's range that are tried. More of them gain nothing that can be told from noise."""

CHANNELS_AT_ONCE = 16
OUTPUTS_AT_ONCE = 512


def fit_grid_by_solving(
    columns: Tensor,
    hessian: Tensor,
    dtype: torch.dtype,
    *,
    bits: int,
    group_size: int,
    sym: bool,
    damp_percent: float,
    desc_act: bool,
) -> Grid:
    """Choose the grid of `columns` (K, N) fp32, scales rounded to `dtype`, under their `hessian` (K, K) fp32.

    Of each group and output the range with the least e^T H e over the group's own channels, all others left exact.
    group_size: -1 for one group per output. damp_percent, desc_act: see `hyocr_core.kit.solve`. A group whose part of
    the Hessian has no Cholesky factor keeps its whole range.
    """
    size = len(columns) if group_size == -1 else group_size
    tried = [clipped_grid(columns, dtype, bits=bits, group_size=size, sym=sym, ratio=ratio) for ratio in RATIOS]
    scales, zeros = torch.stack([grid.scales for grid in tried]), torch.stack([grid.zeros for grid in tried])
    groups = _Groups.of(columns, hessian, size, damp_percent, desc_act=desc_act)
    best = torch.empty(scales.shape[1:], dtype=torch.int64, device=columns.device)
    with one_thread():
        for start in range(0, columns.shape[1], OUTPUTS_AT_ONCE):
            part = slice(start, start + OUTPUTS_AT_ONCE)
            losses = groups.losses(part, scales[..., part].float(), zeros[..., part].float(), tried[0].max_code)
            best[:, part] = losses.argmin(0)
    best[~groups.solvable] = 0
    return Grid(scales.gather(0, best[None])[0], zeros.gather(0, best[None])[0], tried[0].max_code)


@dataclass(frozen=True)
class _Groups:
    """Groups of channels, each in the order in which it is solved.

    columns: (G, g, N). feedback: (G, g, g), pivots: (G, g), of each group's part of the damped Hessian, see `Factor`.
    solvable: (G,) whether there are any.
    """

    columns: Tensor
    feedback: Tensor
    pivots: Tensor
    solvable: Tensor

    @classmethod
    def of(cls, columns: Tensor, hessian: Tensor, size: int, damp_percent: float, *, desc_act: bool) -> _Groups:
        starts = range(0, len(columns), size)
        blocks = torch.stack([hessian[start : start + size, start : start + size] for start in starts])
        columns = columns.view(len(starts), size, -1)
        if desc_act:
            order = torch.argsort(blocks.diagonal(dim1=1, dim2=2), dim=1, descending=True, stable=True)
            blocks = blocks.take_along_dim(order[:, :, None], 1).take_along_dim(order[:, None], 2)
            columns = columns.take_along_dim(order[:, :, None], 1)
        feedback, pivots, failed = factorize_each(blocks, damp_percent)
        return cls(columns, feedback, pivots, failed == 0)

    def losses(self, part: slice, scales: Tensor, zeros: Tensor, max_code: int) -> Tensor:
        """What GPTQ leaves of each output's error in each group, (R, G, n), on R grids; scales, zeros: (R, G, n)."""
        columns = self.columns[..., part]
        size, losses = columns.shape[1], torch.zeros_like(scales)
        errors = columns.new_empty(len(scales), *columns.shape)
        least, most = -zeros, max_code - zeros
        for start in range(0, size, CHANNELS_AT_ONCE):
            stop = min(start + CHANNELS_AT_ONCE, size)
            targets = columns[:, start:stop] + self.feedback[:, start:stop, :start] @ errors[:, :, :start]
            for k in range(start, stop):
                target = targets[:, :, k - start]
                target += (self.feedback[:, k : k + 1, start:k] @ errors[:, :, start:k])[:, :, 0]
                value = (target / scales).round_().clamp_(least, most).mul_(scales)
                torch.sub(columns[:, k], value, out=errors[:, :, k])
                losses.addcmul_(self.pivots[:, k, None], target.sub_(value).square_())
        return losses
