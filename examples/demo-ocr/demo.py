"""The main job on the demo checkpoint: quantize it to 4 bits with GPTQ, and show that it still reads.

Runs the same `hyocr` commands that a user would, prints each, and ends with one table, the path of the report page and
the verdict.
The output goes to --output, where that of an earlier run is replaced.
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
ROWS = {"baseline": "bf16", "rounded": "RTN int4", "model": "GPTQ int4"}
COMPARISONS = {"rounded": "rounded_comparison", "model": "comparison"}


def hyocr(*arguments: str) -> Any:
    """Run a `hyocr` command with --json; its progress stays visible on stderr, its result is returned."""
    click.secho(f"\n$ hyocr {shlex.join(arguments)}", bold=True, err=True)
    command = [str(Path(sys.executable).with_name("hyocr")), *arguments, "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    return json.loads(done.stdout)


def quantize(output: Path) -> float:
    """Quantize the demo checkpoint; seconds of the whole command."""
    shutil.rmtree(output, ignore_errors=True)
    started = time.perf_counter()
    model = ("--model", str(CHECKPOINT), "--output", str(output))
    hyocr("quant", "--method", "gptq", *model, "--calib", str(CALIB), "-o", "group_size=128")
    return time.perf_counter() - started


def result_table(result: dict[str, Any], seconds: float) -> Table:
    """One row for the bf16 checkpoint, one for it rounded to nearest, and one for the quantized one."""
    table = Table(box=None, pad_edge=False, header_style="bold", title_justify="left")
    table.title = f"{len(result['pages'])} held-out lines; RTN is round to nearest"
    table.add_column("checkpoint", no_wrap=True)
    for heading in ("CER %", "95 %", "next token", "KL", "MB", "made in", "read in"):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, title in ROWS.items():
        score, near = result[name], result.get(COMPARISONS.get(name, ""))
        low, high = score["cer_interval"]
        rate = (f"{100 * score['cer']:.2f}", f"{100 * low:.2f}..{100 * high:.2f}")
        closeness = ("", "") if near is None else (f"{near['agreement']:.2%}", f"{near['kl']:.5f}")
        made = f"{seconds:.0f} s" if name == "model" else ""
        table.add_row(title, *rate, *closeness, _megabytes(score), made, f"{score['seconds']:.0f} s")
    return table


def _megabytes(score: dict[str, Any]) -> str:
    return "" if score["weight_bytes"] is None else f"{score['weight_bytes'] / 1e6:.1f}"


@click.command(help=__doc__)
@click.option("--output", type=click.Path(path_type=Path, file_okay=False), default=Path("out/demo"), show_default=True)
def main(output: Path) -> None:
    output.mkdir(parents=True, exist_ok=True)
    checkpoint = output / "gptq"
    seconds = quantize(checkpoint)
    data = ("--data", str(HELDOUT), "--baseline", str(CHECKPOINT), "--rtn")
    result = hyocr("eval", str(checkpoint), *data, "--record")
    console = Console(highlight=False)
    console.print()
    console.print(result_table(result, seconds))
    console.print(f"\nHow much smaller, how much worse, where: {checkpoint / 'report' / 'index.html'}", soft_wrap=True)
    console.print(f"\n{result['verdict']['text']}")


if __name__ == "__main__":
    main()
