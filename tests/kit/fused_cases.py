"""Problems solved by the plain loop over columns and by the fused one; run with TRITON_INTERPRET=1 on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from hyocr_core.kit.grid import Grid
from hyocr_core.kit.solver import Factor, quantize_columns

CASES = [
    # inputs, outputs, group size, block size, symmetric, in an order of its own
    (64, 40, 32, 32, True, True),
    (96, 7, 32, 40, False, True),
    (48, 33, 48, 128, True, False),
    (33, 1, 33, 16, False, True),
]


def exact_problem(inputs: int, outputs: int, group_size: int, sym: bool, ordered: bool) -> tuple[Tensor, Factor, Grid]:
    """Numbers of so few bits that every sum of them is exact in fp32, in whatever order it is added up."""
    random = torch.Generator().manual_seed(inputs + outputs)
    columns = torch.randint(-64, 65, (inputs, outputs), generator=random) / 16
    few = torch.randint(-1, 2, (inputs, inputs), generator=random) / 2
    few *= torch.rand(inputs, inputs, generator=random) < 4 / inputs
    order = torch.randperm(inputs, generator=random) if ordered else None
    groups = inputs // group_size
    scales = 2.0 ** torch.randint(-2, 1, (groups, outputs), generator=random)
    zeros = torch.full((groups, outputs), 8) if sym else torch.randint(0, 16, (groups, outputs), generator=random)
    factor = Factor(few.tril(-1).contiguous(), torch.ones(inputs), 0.01, order)
    return columns, factor, Grid(scales.bfloat16(), zeros.to(torch.uint8), 15)


def main() -> None:
    """Print a line for each case: codes that differ, codes that made up for errors, and whether weights were kept."""
    from hyocr_core.kit.fused import quantize_columns_fused

    for inputs, outputs, group_size, block_size, sym, ordered in CASES:
        columns, factor, grid = exact_problem(inputs, outputs, group_size, sym, ordered)
        before = columns.clone()
        expected = quantize_columns(columns, factor, grid, block_size)
        found = quantize_columns_fused(columns, factor, grid, block_size)
        alone = Factor(torch.zeros_like(factor.feedback), factor.pivots, 0.01, factor.order)
        moved = (expected != quantize_columns(columns, alone, grid, block_size)).sum()
        print(int((found != expected).sum()), int(moved), int(not torch.equal(columns, before)))


if __name__ == "__main__":
    main()
