"""GPTQ's loop over columns as one kernel per block of them, in Triton; importing this imports triton.

The same steps as `hyocr_core.kit.solver.quantize_columns`, in fp32 and rounded alike. Only the sums over earlier
columns add up in another order, so that of a great many codes a few may be the neighbours of those found there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_core.kit.grid import Grid
    from hyocr_core.kit.solver import Factor

LARGEST_BLOCK = 128
"""Columns whose targets one program holds in registers."""

OUTPUTS = 32
"""Outputs of one program: the wider layers of the model then occupy every multiprocessor of a large GPU."""


def quantize_columns_fused(columns: Tensor, factor: Factor, grid: Grid, block_size: int) -> Tensor:
    """Return codes, (K, N) uint8, as `quantize_columns` does; the host waits for nothing."""
    count, outputs = columns.shape
    order = torch.arange(count, device=columns.device) if factor.order is None else factor.order
    groups = (order // (count // len(grid.scales))).to(torch.int32)
    scales, zeros = grid.scales.float().contiguous(), grid.zeros.float().contiguous()
    errors, steps = columns[order].contiguous(), torch.empty_like(columns, memory_format=torch.contiguous_format)
    size, feedback = min(block_size, LARGEST_BLOCK), factor.feedback
    for start in range(0, count, size):
        stop = min(start + size, count)
        targets = torch.addmm(errors[start:stop], feedback[start:stop, :start], errors[:start])
        own = feedback[start:stop, start:stop]
        _settle[(triton.cdiv(outputs, OUTPUTS),)](
            targets,
            errors[start:stop],
            steps[start:stop],
            own,
            groups[start:stop],
            scales,
            zeros,
            stop - start,
            outputs,
            own.stride(0),
            own.stride(1),
            grid.max_code,
            triton.next_power_of_2(size),
            OUTPUTS,
        )
    codes = torch.empty(columns.shape, dtype=torch.uint8, device=columns.device)
    codes[order] = steps.add_(zeros[groups.long()]).to(torch.uint8)
    return codes


@triton.jit  # type: ignore[untyped-decorator]
def _settle(  # type: ignore[no-untyped-def]
    targets,
    errors,
    steps,
    feedback,
    groups,
    scales,
    zeros,
    count,
    outputs,
    feedback_rows,
    feedback_columns,
    max_code,
    ROWS: tl.constexpr,  # noqa: N803
    COLUMNS: tl.constexpr,  # noqa: N803
):
    """Round `count` columns, each corrected for those before it in the block.

    targets, errors, steps: (count, outputs). errors holds the columns and then what rounding left of them.
    """
    rows = tl.arange(0, ROWS)
    places = tl.program_id(0) * COLUMNS + tl.arange(0, COLUMNS)
    inside = places < outputs
    held = (rows[:, None] < count) & inside[None, :]
    tile = tl.load(targets + rows[:, None] * outputs + places[None, :], mask=held, other=0.0)
    for k in range(count):
        group = tl.load(groups + k)
        scale = tl.load(scales + group * outputs + places, mask=inside, other=1.0)
        zero = tl.load(zeros + group * outputs + places, mask=inside, other=0.0)
        target = tl.sum(tl.where(rows[:, None] == k, tile, 0.0), axis=0)
        step = tl.minimum(tl.maximum(tl.div_rn(target, scale), -zero), max_code - zero)
        # Adding 1.5 * 2^23 leaves no bit behind the point: rounded to nearest, ties to even, as PyTorch rounds.
        step = (step + 12582912.0) - 12582912.0
        error = tl.load(errors + k * outputs + places, mask=inside, other=0.0) - step * scale
        tl.store(errors + k * outputs + places, error, mask=inside)
        tl.store(steps + k * outputs + places, step, mask=inside)
        later = (rows > k) & (rows < count)
        weights = tl.load(feedback + rows * feedback_rows + k * feedback_columns, mask=later, other=0.0)
        tile += weights[:, None] * error[None, :]
