"""The k-quants of ggml: q4_k, groups of 32 with a scale and a minimum, and q6_k, groups of 16 with a scale.

256 weights of a row, a super-block, share the float16 unit of their groups' scales. How scales are chosen follows
llama.cpp (`make_qkx3_quants`, `make_qx_quants`): many are tried for each group, and the one kept that loses least when
every input channel counts as much as its mean square. Here the groups of all rows are tried side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

SUPER = 256
GROUP = {"q4_k": 32, "q6_k": 16}
ROWS_AT_ONCE = 256


@dataclass(frozen=True)
class Steps:
    """A value is code * scale - minimum, of codes from `least` to `most`.

    scales, minima: (N, K / group) fp32, as the runtime computes them. header: (N, K / 256, bytes) uint8, the part of
    each super-block that they are made of.
    """

    scales: Tensor
    minima: Tensor
    header: Tensor
    least: int
    most: int

    def codes(self, weight: Tensor) -> Tensor:
        """The codes (N, K) fp32 of the values nearest to `weight` (N, K) fp32."""
        groups = weight.view(*self.scales.shape, -1)
        steps = torch.where(self.scales == 0, torch.inf, self.scales)[..., None]
        return ((groups + self.minima[..., None]) / steps).round_().clamp_(self.least, self.most).flatten(1)


def fit_steps(weight: Tensor, importance: Tensor, kind: str) -> Steps:
    """Choose the scales of `weight` (N, K) fp32; importance: (K,) fp32, the mean square of each input channel."""
    fit = _fit_q4 if kind == "q4_k" else _fit_q6
    parts = [fit(rows, importance) for rows in torch.split(weight, ROWS_AT_ONCE)]
    scales, minima, header = (torch.cat(each) for each in zip(*parts, strict=True))
    return Steps(scales, minima, header, *((0, 15) if kind == "q4_k" else (-32, 31)))


def pack_steps(codes: Tensor, steps: Steps, kind: str) -> Tensor:
    """Return the blocks (N, bytes) uint8 of `codes` (N, K)."""
    if kind == "q4_k":
        return _pack_q4(codes, steps)
    return _pack_q6(codes, steps)


def _fit_q4(weight: Tensor, importance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.view(len(weight), -1, 32)
    spread = 2 * weight.view(len(weight), -1, SUPER).square().mean(2)
    spread = spread.repeat_interleave(SUPER // 32, 1)[..., None]
    weights = importance.view(1, -1, 32) * (spread + groups.square()).sqrt()
    scales, minima = _fit_with_minimum(groups, weights)
    totals = weights.sum(2).view(len(weight), -1, 8)
    unit, small = _fit_positive(scales.view(totals.shape), totals)
    unit_of_minima, small_minima = _fit_positive(minima.view(totals.shape), totals)
    units = [value.to(torch.float16) for value in (unit, unit_of_minima)]
    header = torch.cat([*(each[..., None].view(torch.uint8) for each in units), _six_bits(small, small_minima)], 2)
    own = [
        (each.float()[..., None] * codes).flatten(1) for each, codes in zip(units, (small, small_minima), strict=True)
    ]
    return own[0], own[1], header


def _fit_with_minimum(groups: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and minima (N, G), neither negative, for codes of 4 bits, of groups (N, G, 32)."""
    low, high = groups.amin(2, keepdim=True).clamp_(max=0), groups.amax(2, keepdim=True)
    reach = high - low
    flat = reach <= 0
    reach = torch.where(flat, 1, reach)
    total, total_x = weights.sum(2), (weights * groups).sum(2)
    scale, minimum = (reach / 15)[..., 0], low[..., 0]
    codes = ((groups - low) * (15 / reach)).round_().clamp_(0, 15)
    best = (weights * (codes * scale[..., None] + low - groups).square()).sum(2)
    for step in range(37):
        codes = ((groups - low) * ((14.1 + 0.05 * step) / reach)).round_().clamp_(0, 15)
        weighted = weights * codes
        sum_l, sum_l2, sum_xl = weighted.sum(2), (weighted * codes).sum(2), (weighted * groups).sum(2)
        determinant = total * sum_l2 - sum_l * sum_l
        usable = determinant > 0
        divisor = torch.where(usable, determinant, 1)
        own_scale = (total * sum_xl - total_x * sum_l) / divisor
        own_minimum = (sum_l2 * total_x - sum_l * sum_xl) / divisor
        above = own_minimum > 0
        own_scale = torch.where(above, sum_xl / sum_l2.clamp(min=1e-30), own_scale)
        own_minimum = torch.where(above, 0, own_minimum)
        error = (
            codes.mul_(own_scale[..., None]).add_(own_minimum[..., None]).sub_(groups).square_().mul_(weights).sum(2)
        )
        better = usable & (error < best)
        best = torch.where(better, error, best)
        scale = torch.where(better, own_scale, scale)
        minimum = torch.where(better, own_minimum, minimum)
    return torch.where(flat[..., 0], 0, scale), -minimum


def _fit_positive(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Units (N, B) and codes (N, B, 8) of 6 bits of values (N, B, 8) that are not negative."""
    most = values.amax(2, keepdim=True)
    divisor = torch.where(most > 0, most, 1)
    best = torch.full_like(most, torch.inf)
    unit, codes = torch.zeros_like(most), torch.zeros_like(values)
    for step in range(-4, 5):
        own = (values * ((63 + 0.1 * step) / divisor)).round_().clamp_(0, 63)
        squares = (weights * own * own).sum(2, keepdim=True)
        own_unit = (weights * values * own).sum(2, keepdim=True) / torch.where(squares > 0, squares, 1)
        error = (weights * (values - own_unit * own).square()).sum(2, keepdim=True)
        better = error < best
        best = torch.where(better, error, best)
        unit, codes = torch.where(better, own_unit, unit), torch.where(better, own, codes)
    return unit[..., 0], codes


def _six_bits(scales: Tensor, minima: Tensor) -> Tensor:
    """Eight scales and eight minima (N, B, 8) of 6 bits as 12 bytes."""
    scales, minima = scales.to(torch.uint8), minima.to(torch.uint8)
    first = scales[..., :4] | (scales[..., 4:] >> 4) << 6
    second = minima[..., :4] | (minima[..., 4:] >> 4) << 6
    third = (scales[..., 4:] & 15) | (minima[..., 4:] & 15) << 4
    return torch.cat([first, second, third], 2)


def _pack_q4(codes: Tensor, steps: Steps) -> Tensor:
    pairs = codes.to(torch.uint8).view(len(codes), -1, 4, 2, 32)
    nibbles = pairs[..., 0, :] | pairs[..., 1, :] << 4
    return torch.cat([steps.header, nibbles.flatten(2)], 2).flatten(1)


def _fit_q6(weight: Tensor, importance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    groups = weight.view(len(weight), -1, 16)
    wide = _fit_symmetric(groups, importance.view(1, -1, 16)).view(len(weight), -1, 16)
    largest = wide.gather(2, wide.abs().argmax(2, keepdim=True))
    unit = (largest / -128).to(torch.float16)
    divisor = torch.where(unit == 0, 1, unit.float())
    small = (wide / divisor).round_().clamp_(-128, 127) * (unit != 0)
    header = torch.cat([small.to(torch.int8).view(torch.uint8), unit.view(torch.uint8)], 2)
    scales = (unit.float() * small).flatten(1)
    return scales, torch.zeros_like(scales), header


def _fit_symmetric(groups: Tensor, weights: Tensor) -> Tensor:
    """Scales (N, G) of either sign for codes from -32 to 31, of groups (N, G, 16)."""
    peak = groups.gather(2, groups.abs().argmax(2, keepdim=True))
    divisor = torch.where(peak == 0, 1, peak)
    scale, best = torch.zeros_like(peak[..., 0]), torch.full_like(peak[..., 0], -torch.inf)
    for step in range(-9, 10):
        codes = (groups * (-(32 + 0.1 * step) / divisor)).round_().clamp_(-32, 31)
        weighted = weights * codes
        product, squares = (weighted * groups).sum(2), (weighted * codes).sum(2)
        usable = squares > 0
        own = product / torch.where(usable, squares, 1)
        gain = own * product
        better = usable & (gain > best)
        scale, best = torch.where(better, own, scale), torch.where(better, gain, best)
    return scale


def _pack_q6(codes: Tensor, steps: Steps) -> Tensor:
    parts = (codes + 32).to(torch.uint8).view(len(codes), -1, 2, 4, 32)
    low = parts & 15
    nibbles = torch.cat([low[..., 0, :] | low[..., 2, :] << 4, low[..., 1, :] | low[..., 3, :] << 4], 3)
    high = parts >> 4
    pairs = high[..., 0, :] | high[..., 1, :] << 2 | high[..., 2, :] << 4 | high[..., 3, :] << 6
    return torch.cat([nibbles.flatten(2), pairs.flatten(2), steps.header], 2).flatten(1)
