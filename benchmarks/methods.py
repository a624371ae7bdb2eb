"""Quantize the demo checkpoint with every method in every format, verify it, load it in a runtime, and let it read.

Prints a Markdown table. A checkpoint counts as loaded when `hyocr verify --load` generates from an image with it. The
CPU wheel of vLLM lacks the kernel for FP8 with one scale per weight: there HYOCR_FP8_EMU=1 emulates that one operation,
and the table says so.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click

HYOCR = str(Path(sys.executable).with_name("hyocr"))
ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples/demo-ocr"

RUNS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("fp8", ()),
    ("fp8", ("format=fp8",)),
    ("fp8", ("activation_scheme=dynamic",)),
    ("fp8", ("activation_scheme=dynamic", "format=fp8")),
    ("fp8", ("activation_scheme=dynamic", "quant_vit=true")),
    ("gptq", ("bits=4",)),
    ("gptq", ("bits=4", "format=compressed-tensors")),
    ("gptq", ("bits=4", "format=compressed-tensors", "sym=false")),
    ("gptq", ("bits=8",)),
    ("gptq", ("bits=8", "format=compressed-tensors")),
    ("gptq", ("bits=4", "group_size=64", "quant_vit=true")),
    ("awq", ("bits=4",)),
    ("awq", ("bits=4", "format=compressed-tensors")),
    ("awq", ("bits=4", "zero_point=false")),
    ("awq", ("bits=8", "zero_point=false")),
    ("rtn", ("bits=4",)),
    ("rtn", ("bits=4", "format=compressed-tensors", "sym=false")),
)


@dataclass(frozen=True)
class Row:
    """cer and agreement are fractions; kl in nats per token; loaded: the runtimes that generated from an image."""

    method: str
    options: tuple[str, ...]
    quant_method: str
    size_mb: float
    verified: bool
    loaded: dict[str, str]
    cer: float
    agreement: float
    kl: float


def run_json(*arguments: str, environment: dict[str, str] | None = None) -> tuple[int, Any, str]:
    """Exit code, what a command printed as JSON, and its last line on stderr."""
    command = [HYOCR, *arguments, "--json"]
    # The demo model is so small that a second thread only waits for the first.
    settings = os.environ | {"OMP_NUM_THREADS": "1"} | (environment or {})
    done = subprocess.run(command, capture_output=True, text=True, env=settings, check=False)
    lines = done.stderr.strip().splitlines()
    return done.returncode, json.loads(done.stdout) if done.stdout.strip() else None, lines[-1] if lines else ""


def measure(method: str, options: tuple[str, ...], folder: Path, samples: int, vllm: Path | None) -> Row:
    output = folder / "-".join([method, *options]).replace("=", "-")
    flags = [part for option in options for part in ("-o", option)]
    calib = str(DEMO / "data/calib.jsonl")
    quantized = ["quant", "--method", method, "--model", str(DEMO / "checkpoint"), "--calib", calib, *flags]
    code, report, line = run_json(*quantized, "--output", str(output))
    if code:
        raise click.ClickException(f"{method} {' '.join(options)}: {line}")
    verified, _, line = run_json("verify", str(output), "--original", str(DEMO / "checkpoint"))
    if verified:
        click.echo(f"{output.name}: {line}", err=True)
    arguments = [str(output), "--data", str(DEMO / "data/heldout.jsonl"), "--num-samples", str(samples)]
    _, result, _ = run_json("eval", *arguments, "--baseline", str(DEMO / "checkpoint"))
    config = json.loads((output / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    return Row(
        method=method,
        options=options,
        quant_method=config["quant_method"],
        size_mb=report["weight_bytes_after"] / 1e6,
        verified=not verified,
        loaded=load(output, vllm),
        cer=result["model"]["cer"],
        agreement=result["comparison"]["agreement"],
        kl=result["comparison"]["kl"],
    )


def load(output: Path, vllm: Path | None) -> dict[str, str]:
    """Runtime -> `yes`, `emulated`, or why not."""
    found = {}
    code, _, line = run_json("verify", str(output), "--load", "transformers")
    found["Transformers"] = "yes" if code == 0 else line.replace(f"{output}", output.name)
    if vllm is not None:
        arguments = ["verify", str(output), "--load", "vllm", "--python", str(vllm)]
        code, _, line = run_json(*arguments)
        found["vLLM CPU"] = "yes" if code == 0 else line.replace(f"{output}", output.name)
        if code and run_json(*arguments, environment={"HYOCR_FP8_EMU": "1"})[0] == 0:
            found["vLLM CPU"] = "emulated"
    return found


def in_a_word(loaded: str) -> str:
    """`yes`, `emulated`, `no`, or `not tried` where a package is missing."""
    if loaded in ("yes", "emulated"):
        return loaded
    missing = "cannot be tried here" in loaded or "ImportError" in loaded
    return "not tried" if missing else "no"


def table(rows: list[Row]) -> str:
    """The Markdown table of the README and of docs/choose.md."""
    runtimes = list(rows[0].loaded)
    titles = ["method, options", "written as", "MB", "`verify`", *runtimes, "CER", "agreement", "KL"]
    lines = ["| " + " | ".join(titles) + " |", "|---" * len(titles) + "|"]
    for row in rows:
        cells = [
            f"`{row.method}` {' '.join(row.options)}".rstrip(),
            row.quant_method,
            f"{row.size_mb:.2f}",
            "sound" if row.verified else "FAULTY",
            *(in_a_word(row.loaded[name]) for name in runtimes),
            f"{row.cer:.2%}",
            f"{row.agreement:.2%}",
            f"{row.kl:.5f}",
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


@click.command(help=__doc__)
@click.option("--samples", default=512, show_default=True, help="Held-out lines to read.")
@click.option("--only", help="Only this method.")
@click.option("--vllm", type=click.Path(path_type=Path, exists=True), help="Python of an environment with vLLM.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here, too.")
def main(samples: int, only: str | None, vllm: Path | None, file: Path | None) -> None:
    # An environment's python is a link that must not be resolved, or it is the system's.
    python = None if vllm is None else vllm.absolute()
    with tempfile.TemporaryDirectory(prefix="hyocr-methods-") as folder:
        rows = []
        for method, options in RUNS:
            if only in (None, method):
                rows.append(measure(method, options, Path(folder), samples, python))
                click.echo(f"{method} {' '.join(options)}: {rows[-1].loaded}", err=True)
    click.echo(table(rows))
    if file is not None:
        file.write_text(json.dumps([asdict(row) for row in rows], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
