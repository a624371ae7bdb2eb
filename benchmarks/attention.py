"""Time ways to attend over the patches of a page on this processor, and say how exact each is.

Heads and widths are those of the vision tower of the 1B shape. `sdpa` is what hyocr runs: PyTorch's own, in bf16. The
others are fp32 at both precisions of matrix products, and rows of scores in fp32 by pieces of queries, their weights
rounded to bf16 for the second product. Seconds are of CPU time for a layer of 16 heads, the best of several runs; the
error is relative to fp64, on random values. Use it to see whether a processor other than ours deserves another way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path

import click
import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

HEADS, WIDTH = 16, 72
CHECKED_QUERIES = 256


def sdpa(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """(1, heads, patches, WIDTH) bf16, all of them, as the result is."""
    return scaled_dot_product_attention(queries, keys, values)


def in_fp32(precision: str) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """The same on fp32 copies, multiplied as `torch.set_float32_matmul_precision` says."""

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        torch.set_float32_matmul_precision(precision)
        return scaled_dot_product_attention(queries.float(), keys.float(), values.float()).to(queries.dtype)

    return attend


def by_pieces(rows: int) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Scores of so many queries at a time."""

    def attend(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        torch.set_float32_matmul_precision("medium")
        output, patches = torch.empty_like(queries), queries.shape[2]
        scores, weights = torch.empty(rows, patches), torch.empty(rows, patches, dtype=queries.dtype)
        for head in range(queries.shape[1]):
            scaled, transposed = queries[0, head].float().mul_(WIDTH**-0.5), keys[0, head].float().T
            for start in range(0, patches, rows):
                count = min(rows, patches - start)
                torch.mm(scaled[start : start + count], transposed, out=scores[:count])
                weights[:count].copy_(torch.softmax(scores[:count], -1, out=scores[:count]))
                output[0, head, start : start + count] = weights[:count] @ values[0, head]
        return output

    return attend


WAYS = {
    "sdpa, bf16": sdpa,
    "sdpa, fp32": in_fp32("highest"),
    "sdpa, fp32 at medium precision": in_fp32("medium"),
    "pieces of 256 queries": by_pieces(256),
    "pieces of 512 queries": by_pieces(512),
}


def measure(patches: int, heads: int, repeats: int) -> dict[str, dict[str, float]]:
    """CPU seconds for a layer of all heads, and relative error, of each way."""
    torch.manual_seed(0)
    drawn = (torch.randn(1, patches, heads, WIDTH).bfloat16().transpose(1, 2) for _ in range(3))
    queries, keys, values = drawn
    exact = sdpa(queries[:, :, :CHECKED_QUERIES].double(), keys.double(), values.double())
    found = {}
    for name, attend in WAYS.items():
        before = torch.get_float32_matmul_precision()
        seconds = []
        for _ in range(repeats):
            started = time.process_time()
            output = attend(queries, keys, values)
            seconds.append((time.process_time() - started) * HEADS / heads)
        torch.set_float32_matmul_precision(before)
        error = (output[:, :, :CHECKED_QUERIES].double() - exact).norm() / exact.norm()
        found[name] = {"seconds": min(seconds), "error": error.item()}
    return found


@click.command(help=__doc__)
@click.option("--patches", default=3072, show_default=True, help="Of a page; 3072 are 1024x768 pixels.")
@click.option("--heads", default=4, show_default=True, help="Computed; the time is scaled to 16.")
@click.option("--threads", default=1, show_default=True)
@click.option("--repeats", default=5, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here, too.")
def main(patches: int, heads: int, threads: int, repeats: int, file: Path | None) -> None:
    torch.set_num_threads(threads)
    click.echo(f"{patches} patches, {threads} threads, {torch.backends.cpu.get_cpu_capability()}")
    found = measure(patches, heads, repeats)
    for name, each in found.items():
        click.echo(f"{name:32} {each['seconds']:7.3f} s  error {each['error']:.2e}")
    if file is not None:
        file.write_text(
            json.dumps({"patches": patches, "threads": threads, **found}, indent=2) + "\n", encoding="utf-8"
        )


if __name__ == "__main__":
    main()
