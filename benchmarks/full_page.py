"""Measure time and memory of `hyocr quant` and `hyocr eval` for one page of full size, beside what the plan says.

The page is an A4 scan at 300 dpi by default. The model must take such pages: write it with
`make_checkpoint.py --generation 1.5`. Each command is a process of its own, so that its peak of memory is its own.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
from pages import write_pages
from quantize import HYOCR, describe_machine, run_job

A4_AT_300_DPI = (2480, 3508)
NEW_TOKENS = 16


@dataclass(frozen=True)
class Command:
    """What one command took. peak_rss_gb: as the kernel says; planned_gb: as `--dry-run` said, None if it does not."""

    seconds: float
    cpu_seconds: float
    peak_rss_gb: float
    planned_gb: float | None


@dataclass(frozen=True)
class Result:
    """tokens, patches: of the page as a calibration sample. planned_seconds: the least and the most."""

    width: int
    height: int
    tokens: int
    patches: int
    planned_seconds: tuple[float, float]
    quant: Command
    phases: dict[str, float]
    eval: Command
    how: dict[str, Any]


def measure(model: Path, size: tuple[int, int], method: str, extra: list[str], folder: Path) -> Result:
    source = str(write_pages(folder / "pages", 1, 0, size))
    output = folder / "quantized"
    quant = [str(HYOCR), "quant", "--method", method, "--model", str(model), "--calib", source, "--output", str(output)]
    quant += extra
    planned = json.loads(subprocess.run([*quant, "--dry-run", "--json"], check=True, stdout=subprocess.PIPE).stdout)
    memory = planned["resources"]["memory"]
    done = _run(quant, None if memory is None else memory / 1e9)
    report = json.loads((output / "hyocr_report.json").read_text(encoding="utf-8"))
    read = [str(HYOCR), "eval", str(output), "--data", source, "--max-new-tokens", str(NEW_TOKENS), "--no-resume"]
    return Result(
        *size,
        tokens=planned["calibration"]["tokens"],
        patches=planned["calibration"]["patches"],
        planned_seconds=tuple(planned["time"]["seconds"]),
        quant=done,
        phases=report["phases"],
        eval=_run([*read, "--baseline", str(model), *extra], None),
        how=describe_machine() | {"method": method, "options": extra},
    )


def _run(command: list[str], planned_gb: float | None) -> Command:
    seconds, usage = run_job(command)
    return Command(seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9, planned_gb)


def print_result(result: Result) -> None:
    rows = [
        ("page", f"{result.width}x{result.height}: {result.tokens} tokens, {result.patches} patches"),
        ("quant", f"{result.quant.seconds:.0f} s, {result.quant.cpu_seconds:.0f} s of CPU time"),
        ("  planned", "{:.0f} to {:.0f} s".format(*result.planned_seconds)),
        ("  peak RSS", f"{result.quant.peak_rss_gb:.2f} GB; planned {result.quant.planned_gb or 0:.2f} GB"),
        *((f"  phase {name}", f"{seconds:.0f} s") for name, seconds in result.phases.items()),
        ("eval with baseline", f"{result.eval.seconds:.0f} s, {result.eval.cpu_seconds:.0f} s of CPU time"),
        ("  peak RSS", f"{result.eval.peak_rss_gb:.2f} GB"),
        *((name, str(value)) for name, value in result.how.items()),
    ]
    for name, value in rows:
        click.echo(f"{name:24} {value}")


@click.command(help=__doc__)
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--size", nargs=2, type=int, default=A4_AT_300_DPI, show_default=True, help="Width and height in pixels.")
@click.option("--method", default="gptq", show_default=True)
@click.option("--max-pixels", type=int, help="As for the commands.  [default: what the model takes]")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here, too.")
def main(model: Path, size: tuple[int, int], method: str, max_pixels: int | None, file: Path | None) -> None:
    folder = Path(tempfile.mkdtemp(prefix="hyocr-bench-", dir=model.resolve().parent))
    extra = [] if max_pixels is None else ["--max-pixels", str(max_pixels)]
    try:
        result = measure(model, size, method, extra, folder)
    finally:
        shutil.rmtree(folder)
    print_result(result)
    if file is not None:
        file.write_text(json.dumps(asdict(result), indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
