"""Time a whole job against its floor, and against another version's, and measure its memory.

The floor is the calibration forward alone (floor.py), timed right before and right after the job and averaged, so that
a machine that is busy with something else weighs on both. The job is the command that a user runs, from start-up to the
renamed folder. --against names the `hyocr` of another version; its job comes right after, on the same pages.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import click
from pages import write_pages

from hyocr_core.resources import processor

HERE = Path(__file__).parent
HYOCR = Path(sys.executable).with_name("hyocr")


@dataclass(frozen=True)
class Result:
    """Seconds are of wall time, CPU seconds are user and system time over all cores. The floor: before, after.

    other_seconds, other_cpu_seconds: of the other version's job.
    """

    floor_seconds: tuple[float, float]
    floor_cpu_seconds: tuple[float, float]
    job_seconds: float
    job_cpu_seconds: float
    ratio: float
    cpu_ratio: float
    peak_rss_gb: float
    phases: dict[str, float]
    pages: int
    tokens: int
    how: dict[str, Any]
    other_seconds: float | None = None
    other_cpu_seconds: float | None = None


def run_floor(model: Path, source: Path) -> dict[str, Any]:
    """Time the calibration forward in a process of its own."""
    command = [sys.executable, str(HERE / "floor.py"), str(model), str(source)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def run_job(command: list[str]) -> tuple[float, resource.struct_rusage]:
    """Run a command; seconds of wall time, and what the kernel says it used."""
    started = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise click.ClickException(f"{' '.join(command)} ended with exit code {process.returncode}")
    return time.perf_counter() - started, usage


def measure(
    model: Path, methods: Sequence[str], count: int, seed: int, folder: Path, *, spill: bool, against: Path | None
) -> dict[str, Result]:
    """One result for each method; the floor after one job is the floor before the next."""
    source = write_pages(folder / "pages", count, seed)
    results: dict[str, Result] = {}
    before = run_floor(model, source)
    for method in methods:
        output = folder / "quantized"
        arguments = [
            "quant",
            "--method",
            *method.split(),
            "--model",
            str(model),
            "--calib",
            str(source),
            "--output",
            str(output),
            *(["--spill"] if spill else []),
        ]
        seconds, usage = run_job([str(HYOCR), *arguments])
        others: dict[str, float] = {}
        if against is not None:
            other = folder / "other"
            taken, used = run_job([str(against), *(str(other) if word == str(output) else word for word in arguments)])
            others = {"other_seconds": taken, "other_cpu_seconds": used.ru_utime + used.ru_stime}
            shutil.rmtree(other)
        after = run_floor(model, source)
        report = json.loads((output / "hyocr_report.json").read_text(encoding="utf-8"))
        shutil.rmtree(output)
        floor, floor_cpu = ((before[key], after[key]) for key in ("seconds", "cpu_seconds"))
        cpu_seconds = usage.ru_utime + usage.ru_stime
        results[method] = Result(
            floor_seconds=floor,
            floor_cpu_seconds=floor_cpu,
            job_seconds=seconds,
            job_cpu_seconds=cpu_seconds,
            ratio=seconds / statistics.mean(floor),
            cpu_ratio=cpu_seconds / statistics.mean(floor_cpu),
            peak_rss_gb=usage.ru_maxrss * 1024 / 1e9,
            phases=report["phases"],
            pages=before["pages"],
            tokens=before["tokens"],
            how=describe_machine() | {"command": " ".join(["hyocr", *arguments[:3], "..."])},
            **others,
        )
        before = after
    return results


def describe_machine() -> dict[str, Any]:
    """What the numbers depend on: processor, cores, load at the end, and versions."""
    packages = ("hyocr-core", "torch", "transformers")
    return {
        "cpu": processor()[0] or platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_average_5_minutes": round(os.getloadavg()[1], 1),
        "python": platform.python_version(),
    } | {package: version(package) for package in packages}


def print_result(result: Result) -> None:
    rows = [
        ("pages, tokens", f"{result.pages}, {result.tokens}"),
        ("floor before, after", _seconds(*result.floor_seconds)),
        ("  of CPU time", _seconds(*result.floor_cpu_seconds)),
        ("whole job", _seconds(result.job_seconds)),
        ("  of CPU time", _seconds(result.job_cpu_seconds)),
        ("ratio to the floor", f"{result.ratio:.2f}"),
        ("  of CPU time", f"{result.cpu_ratio:.2f}"),
        *_against(result),
        ("peak RSS", f"{result.peak_rss_gb:.2f} GB"),
        *((f"phase {name}", _seconds(seconds)) for name, seconds in result.phases.items()),
        *((name, str(value)) for name, value in result.how.items()),
    ]
    for name, value in rows:
        click.echo(f"{name:24} {value}")


def _against(result: Result) -> list[tuple[str, str]]:
    if result.other_seconds is None or result.other_cpu_seconds is None:
        return []
    cpu_ratio = result.job_cpu_seconds / result.other_cpu_seconds
    return [
        ("the other version's job", _seconds(result.other_seconds)),
        ("  of CPU time", _seconds(result.other_cpu_seconds)),
        ("ratio to it", f"{result.job_seconds / result.other_seconds:.2f}"),
        ("  of CPU time", f"{cpu_ratio:.2f}"),
    ]


def _seconds(*values: float) -> str:
    return ", ".join(f"{value:.1f} s" for value in values)


@click.command(help=__doc__)
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--method",
    "methods",
    multiple=True,
    default=("gptq",),
    show_default=True,
    help="May be repeated; options may follow the name.",
)
@click.option("--pages", "count", default=8, show_default=True, help="Rendered calibration pages of 1024x768.")
@click.option("--seed", default=0, show_default=True)
@click.option("--spill", is_flag=True, help="As of `hyocr quant`.")
@click.option("--against", type=click.Path(path_type=Path, exists=True), help="The hyocr of another version.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here, too.")
def main(
    model: Path,
    methods: tuple[str, ...],
    count: int,
    seed: int,
    spill: bool,
    against: Path | None,
    file: Path | None,
) -> None:
    folder = Path(tempfile.mkdtemp(prefix="hyocr-bench-", dir=model.resolve().parent))
    try:
        results = measure(model, methods, count, seed, folder, spill=spill, against=against)
    finally:
        shutil.rmtree(folder)
    for result in results.values():
        print_result(result)
    if file is not None:
        found = {method: asdict(result) for method, result in results.items()}
        file.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
