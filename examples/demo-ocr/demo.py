"""The main job on the demo checkpoint: quantize it to 4 bits in two ways, and show that it still reads.

Runs the same `hyocr` commands that a user would, prints each, and ends with one table. Outputs go to --output, where
those of an earlier run are replaced.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

HERE = Path(os.path.relpath(Path(__file__).parent))
CHECKPOINT, CALIB, HELDOUT = HERE / "checkpoint", HERE / "data/calib.jsonl", HERE / "data/heldout.jsonl"
METHODS = {"rtn": "RTN int4", "gptq": "GPTQ int4"}


def hyocr(*arguments: str) -> Any:
    """Run a `hyocr` command with --json; its progress stays visible on stderr, its result is returned."""
    click.secho(f"\n$ hyocr {shlex.join(arguments)}", bold=True, err=True)
    command = [str(Path(sys.executable).with_name("hyocr")), *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def quantize(method: str, output: Path) -> float:
    """Quantize the demo checkpoint; seconds of the whole command."""
    shutil.rmtree(output, ignore_errors=True)
    started = time.perf_counter()
    model = ("--model", str(CHECKPOINT), "--output", str(output))
    hyocr("quant", "--method", method, *model, "--calib", str(CALIB), "-o", "group_size=128")
    return time.perf_counter() - started


def result_table(evaluations: dict[str, Any], seconds: dict[str, float]) -> Table:
    """One row for the bf16 checkpoint and one for each quantized one."""
    first = next(iter(evaluations.values()))
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.title = f"{len(first['pages'])} held-out lines; RTN is round-to-nearest"
    table.add_column("checkpoint", no_wrap=True)
    for heading in ("CER %", "95 %", "next token", "KL", "MB", "made in", "read in"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_row("bf16", *_scores(first["baseline"]), "", "", *_sizes(first["baseline"]))
    for method, result in evaluations.items():
        near = result["comparison"]
        closeness = (f"{near['agreement']:.2%}", f"{near['kl']:.5f}")
        table.add_row(METHODS[method], *_scores(result["model"]), *closeness, *_sizes(result["model"], seconds[method]))
    return table


def _scores(score: dict[str, Any]) -> tuple[str, str]:
    low, high = score["cer_interval"]
    return f"{100 * score['cer']:.2f}", f"{100 * low:.2f}..{100 * high:.2f}"


def _sizes(score: dict[str, Any], seconds: float | None = None) -> tuple[str, str, str]:
    quantized = "" if seconds is None else f"{seconds:.0f} s"
    return f"{score['weight_bytes'] / 1e6:.1f}", quantized, f"{score['seconds']:.0f} s"


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=Path("out/demo"), show_default=True)
def main(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    seconds = {method: quantize(method, output / method) for method in METHODS}
    evaluations = {
        method: hyocr("eval", str(output / method), "--data", str(HELDOUT), "--baseline", str(CHECKPOINT))
        for method in METHODS
    }
    console = Console(highlight=False)
    console.print()
    console.print(result_table(evaluations, seconds))
    console.print(f"\nEvery layer's error: {output / 'gptq' / 'hyocr_report.json'}")


if __name__ == "__main__":
    main()
