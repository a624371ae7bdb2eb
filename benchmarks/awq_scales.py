"""How well AWQ's scales are chosen: every candidate of every search solved by GPTQ, and what the chosen one loses more.

Quantizes a checkpoint with `awq` and its defaults. Beside the choice that the run makes, by the loss that is to be
expected of GPTQ's codes, stands that by the errors of rounding to nearest, as of `rounding: nearest`.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from unittest.mock import patch

import click
import torch
from hyocr_plugin_awq.columns import full_range_grid
from hyocr_plugin_awq.config import AwqConfig
from hyocr_plugin_awq.expected import expected_best
from hyocr_plugin_awq.layers import BLOCK_SIZE, solving_factor
from hyocr_plugin_awq.scales import Candidate
from hyocr_plugin_awq.search import best_candidate, linear_loss
from torch import Tensor

from hyocr_core import quantize
from hyocr_core.kit import Factor, decode, quantize_columns


@dataclass(frozen=True)
class Search:
    """Squared errors of outputs: the least of all candidates, and those of the two choices."""

    least: float
    expected: float
    nearest: float


def solved_loss(columns: Tensor, scales: Tensor, dtype: torch.dtype, hessian: Tensor, config: AwqConfig) -> float:
    """tr(E^T H E) of the errors that GPTQ's codes make with these scales (K,)."""
    folded = (columns * scales[:, None]).to(dtype).float()
    own = hessian / scales[:, None] / scales
    factor = solving_factor(own)
    if factor is None:
        return float("inf")
    grid = full_range_grid(folded, dtype, config)
    errors = (decode(quantize_columns(folded, factor, grid, BLOCK_SIZE), grid).float() - folded).double()
    return (errors * (own.double() @ errors)).sum().item()


def measure(model: Path, calib: str, samples: int, outputs: int) -> list[Search]:
    """Quantize the checkpoint, and look at every search on the way; outputs: as many at most of each are solved."""
    found: list[Search] = []

    def observed(
        candidates: list[Candidate],
        columns: Tensor,
        channels: Tensor,
        dtype: torch.dtype,
        hessian: Tensor,
        factor: Factor,
        config: AwqConfig,
    ) -> Candidate:
        chosen = expected_best(candidates, columns, channels, dtype, hessian, factor, config)
        nearest = best_candidate(candidates, columns, channels, dtype, linear_loss(hessian), config)
        some = columns[:, :: -(-columns.shape[1] // outputs)].contiguous()
        losses = [solved_loss(some, item.scales[channels], dtype, hessian, config) for item in candidates]
        places = {id(item): index for index, item in enumerate(candidates)}
        found.append(Search(min(losses), losses[places[id(chosen)]], losses[places[id(nearest)]]))
        return chosen

    with tempfile.TemporaryDirectory() as folder, patch("hyocr_plugin_awq.smooth.expected_best", observed):
        quantize(model=str(model), method="awq", output=Path(folder) / "out", calib=calib, num_samples=samples)
    return found


@click.command(help=__doc__)
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.argument("calib")
@click.option("--samples", default=64, show_default=True)
@click.option("--outputs", default=256, show_default=True, help="Outputs of each search that are solved, at most.")
def main(model: Path, calib: str, samples: int, outputs: int) -> None:
    found = measure(model, calib, samples, outputs)
    click.echo(f"{len(found)} searches; squared error above the least of all candidates, mean and most:")
    for how in ("expected", "nearest"):
        more = [getattr(one, how) / one.least - 1 for one in found]
        click.echo(f"{how:10} {fmean(more):7.1%} {max(more):7.1%}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
