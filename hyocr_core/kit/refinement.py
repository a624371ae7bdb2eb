"""Codes and scales of a solved layer, each made better for the other: least squares, then coordinate descent.

Both lower the same error tr(E^T H E) of E = W - V, or leave it.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from hyocr_core.kit.threads import one_thread

if TYPE_CHECKING:
    from torch import Tensor

    from hyocr_core.kit.grid import Grid

RIDGE = 1e-8
"""Share of the mean diagonal that keeps the scale of a group of zeros, which says nothing, from being undetermined."""


def refine(
    columns: Tensor, codes: Tensor, grid: Grid, hessian: Tensor, damping: float, block_size: int
) -> tuple[Tensor, Grid]:
    """One round on weights `columns` (K, N) fp32 with their codes (K, N) uint8; returns new codes and a new grid.

    hessian: (K, K) fp32. damping: share of its mean diagonal that is added to it. No argument is modified.
    """
    damped = hessian.clone()
    damped.diagonal().add_(hessian.diagonal().mean() * damping)
    grid = refit_scales(columns, codes, grid, damped)
    return descend(columns, codes, grid, damped, block_size), grid


def refit_scales(columns: Tensor, codes: Tensor, grid: Grid, hessian: Tensor) -> Grid:
    """Return the grid with the scales, in their dtype, that are best for these codes, all of an output together.

    An output for which they would not be better keeps its own. The hessian must have a positive diagonal.
    """
    groups, size, outputs = len(grid.scales), len(columns) // len(grid.scales), columns.shape[1]
    steps = codes.view(groups, size, outputs).float() - grid.zeros[:, None].float()
    # With V = sum of s_g Z_g the error is s^T A s - 2 b^T s + |W|: a quadratic of a few unknowns for each output.
    quadratic = columns.new_empty(outputs, groups, groups, dtype=torch.float64)
    for index in range(groups):
        moved = hessian[:, index * size : (index + 1) * size] @ steps[index]
        quadratic[:, :, index] = moved.view(steps.shape).mul_(steps).sum(1).T
    linear = (hessian @ columns).view(steps.shape).mul_(steps).sum(1).T.double()
    diagonal = quadratic.diagonal(dim1=1, dim2=2)
    held = quadratic + torch.diag_embed((RIDGE * diagonal.mean(1, keepdim=True)).clamp_(min=RIDGE).expand_as(diagonal))
    found = torch.linalg.solve(held, linear).to(grid.scales.dtype)
    own = grid.scales.T
    # Of the other sign, or lost in its dtype, a scale would no longer be one.
    found = torch.where((found > 0) & found.isfinite(), found, own)
    better = _quadratic(quadratic, linear, found) < _quadratic(quadratic, linear, own)
    return replace(grid, scales=torch.where(better[:, None], found, own).T.contiguous())


def descend(columns: Tensor, codes: Tensor, grid: Grid, hessian: Tensor, block_size: int) -> Tensor:
    """Return codes each of which was, in its turn, the best one while all others stayed as they were by then."""
    count, outputs = columns.shape
    size, scales, zeros = count // len(grid.scales), grid.scales.float(), grid.zeros.float()
    codes = codes.clone()
    values = (codes.view(-1, size, outputs).float() - zeros[:, None]).mul_(scales[:, None])
    errors = columns - values.flatten(0, 1)
    diagonal = hessian.diagonal()
    for start in range(0, count, block_size):
        stop = min(start + block_size, count)
        gradients, moved = hessian[start:stop] @ errors, columns.new_empty(stop - start, outputs)
        with one_thread():
            for k in range(start, stop):
                gradient, group = gradients[k - start], k // size
                gradient.addmv_(moved[: k - start].T, hessian[k, start:k], alpha=-1)
                target = columns[k] - errors[k] + gradient / diagonal[k]
                code = (target / scales[group]).round_().add_(zeros[group]).clamp_(0, grid.max_code)
                error = columns[k] - (code - zeros[group]).mul_(scales[group])
                moved[k - start] = errors[k] - error
                errors[k], codes[k] = error, code
    return codes


def _quadratic(quadratic: Tensor, linear: Tensor, scales: Tensor) -> Tensor:
    """The part of each output's error that depends on its scales, (N,) fp64."""
    scales = scales.double()
    return torch.einsum("ng,ngh,nh->n", scales, quadratic, scales) - 2 * (linear * scales).sum(1)
