"""Time one run in several processes against the same run in one process with as many threads.

Both are commands that a user runs, from start-up to the renamed folder, one right after the other, and so again in each
round, so that a machine that is busy with something else weighs on both. There CPU seconds say more than seconds: they
show whether the processes do more work together than one does.
"""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

import click
from pages import write_pages
from quantize import describe_machine, run_job


@dataclass(frozen=True)
class Round:
    """Seconds of wall time, and of CPU time over all processes."""

    one_seconds: float
    one_cpu_seconds: float
    several_seconds: float
    several_cpu_seconds: float


def measure(model: Path, method: str, processes: int, source: Path, folder: Path) -> Round:
    """One round."""
    quant = ["-m", "hyocr_core", "quant", "--method", method, "--model", str(model), "--calib", str(source)]
    one = ["env", f"OMP_NUM_THREADS={processes}", sys.executable, *quant]
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    several = ["env", "OMP_NUM_THREADS=1", sys.executable, *launch, *quant]
    found: list[float] = []
    for name, command in (("one", one), ("several", several)):
        seconds, usage = run_job([*command, "--output", str(folder / name)])
        shutil.rmtree(folder / name)
        found += [seconds, usage.ru_utime + usage.ru_stime]
    return Round(*found)


@click.command(help=__doc__)
@click.argument("model", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option("--method", default="gptq", show_default=True)
@click.option("--processes", default=2, show_default=True, help="Also the threads of the one process.")
@click.option("--pages", "count", default=8, show_default=True, help="Rendered calibration pages of 1024x768.")
@click.option("--rounds", default=3, show_default=True)
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here, too.")
def main(model: Path, method: str, processes: int, count: int, rounds: int, file: Path | None) -> None:
    with tempfile.TemporaryDirectory(prefix="hyocr-bench-", dir=model.resolve().parent) as made:
        source = write_pages(Path(made) / "pages", count, 0)
        found = [measure(model, method, processes, source, Path(made)) for _ in range(rounds)]
    for each in found:
        click.echo(
            f"one process {each.one_seconds:.1f} s ({each.one_cpu_seconds:.1f} s of CPU), "
            f"{processes} processes {each.several_seconds:.1f} s ({each.several_cpu_seconds:.1f} s of CPU)"
        )
    ratio = statistics.median(each.several_seconds / each.one_seconds for each in found)
    cpu_ratio = statistics.median(each.several_cpu_seconds / each.one_cpu_seconds for each in found)
    click.echo(f"several to one, median: {ratio:.2f}, of CPU time {cpu_ratio:.2f}")
    if file is not None:
        how = describe_machine() | {"method": method, "processes": processes, "pages": count}
        result = {"rounds": [asdict(each) for each in found], "ratio": ratio, "cpu_ratio": cpu_ratio, "how": how}
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
