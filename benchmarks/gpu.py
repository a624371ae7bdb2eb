"""What hyocr does on a GPU, in one command of less than eight minutes that needs no network and no installed hyocr.

    python benchmarks/gpu.py

Parts: codes, those of fixed problems beside the CPU's; demo, the trained checkpoint quantized on the device and read
beside the original; then on a checkpoint of the 1B shape the methods, 128 pages each, and eval; vllm, where it is
installed. What fails is noted, and the rest goes on; what finds no time left is noted too.
"""

from __future__ import annotations

import importlib.util
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
PACKAGES = HERE.parent / "out/gpu-packages"
"""What `pip install --target` laid there for a Python that lacks it."""

sys.path[:0] = [str(HERE), str(HERE.parent)]
sys.path.append(str(PACKAGES))

import click  # noqa: E402
from from_checkout import REPO, checkout_environment  # noqa: E402

METHODS = ("fp8", "gptq", "awq")
GOALS = {"fp8": 10.0, "gptq": 15.0, "awq": 30.0}
"""Seconds for 128 pages on an H100, start-up included."""

DEMO = REPO / "examples/demo-ocr"
NEW_TOKENS = 128

Found = dict[str, Any]


class LeftOut(Exception):  # noqa: N818
    """Why a part was not run."""


@dataclass
class Bench:
    """device: cuda or cpu. small: tiny models and few pages, to try the script itself. ends: when time is over."""

    device: str
    small: bool
    pages: int
    folder: Path
    environment: Mapping[str, str]
    ends: float
    vllm_python: Path | None = None
    made: dict[str, Path] = field(default_factory=dict)

    def left(self) -> float:
        """Seconds that are left."""
        return self.ends - time.monotonic()

    def run(self, command: Sequence[str]) -> tuple[str, float]:
        """Run a command; what it printed, and its seconds. Raises RuntimeError with the last line it said."""
        if self.left() < 5:
            raise LeftOut("no time left")
        started = time.perf_counter()
        done = subprocess.run(
            command,
            env=dict(self.environment),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=self.left(),
            check=False,
        )
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["says nothing"]
            raise RuntimeError(f"ended with {done.returncode}: {said[-1]}")
        return done.stdout, time.perf_counter() - started

    def hyocr(self, *arguments: str) -> tuple[str, Found]:
        """Run a command of hyocr; what it printed, and what it took."""
        note = self.folder / "note.json"
        printed, seconds = self.run([sys.executable, str(HERE / "gpu_job.py"), str(note), *arguments])
        return printed, {"seconds": seconds, **json.loads(note.read_text(encoding="utf-8"))}

    def quantize(self, method: str, model: Path, calib: str, pages: int, *options: str) -> tuple[Path, Found]:
        """Quantize a checkpoint; where it lies, and what that took, by phase."""
        output = Path(tempfile.mkdtemp(prefix=f"{method}-", dir=self.folder)) / method
        names = {"method": method, "model": model, "calib": calib, "num-samples": pages, "output": output}
        given = [word for name, value in names.items() for word in (f"--{name}", str(value))]
        _, took = self.hyocr("quant", *given, "--device", self.device, *options)
        report = json.loads((output / "hyocr_report.json").read_text(encoding="utf-8"))
        took |= {"phases": report["phases"], "tokens": report["calibration"]["tokens"]}
        took["degraded"] = sum(layer["degraded"] is not None for layer in report["layers"])
        return output, took

    def evaluate(self, model: Path, data: str, pages: int, *options: str) -> tuple[Found, Found]:
        """Evaluate a checkpoint; the result, and what that took."""
        given = ["--data", data, "--num-samples", str(pages), "--device", self.device]
        state = tempfile.mkdtemp(prefix="state-", dir=self.folder)
        printed, took = self.hyocr("eval", str(model), *given, "--state", state, "--json", *options)
        return json.loads(printed), took

    def tiny(self) -> Path:
        """A random checkpoint of a megabyte."""
        from hyocr_core.testing.tiny import shared_checkpoint

        return shared_checkpoint(self.folder)

    def large(self) -> Path:
        """The checkpoint of the 1B shape, made once."""
        if self.small:
            return self.tiny()
        if "large" not in self.made:
            model = self.folder / "bench-1b"
            self.run([sys.executable, str(HERE / "make_checkpoint.py"), str(model)])
            self.made["large"] = model
        return self.made["large"]

    def rendered(self) -> Path:
        """Pages of 1024x768, made once."""
        if "pages" not in self.made:
            from pages import write_pages

            self.made["pages"] = write_pages(self.folder / "pages", self.pages, 0)
        return self.made["pages"]


def compare_codes(bench: Bench) -> Found:
    """How many codes of fixed problems are those that the CPU finds, and how good they are beside them."""
    from gpu_codes import PROBLEMS

    return {name: problem(bench.device, small=bench.small) for name, problem in PROBLEMS.items()}


def read_demo(bench: Bench) -> Found:
    """Quantize the trained checkpoint on the device, and read held-out lines with it and with the original."""
    model = bench.tiny() if bench.small else DEMO / "checkpoint"
    calib, data = ("synthetic:4",) * 2 if bench.small else (str(DEMO / f"data/{n}.jsonl") for n in ("calib", "heldout"))
    pages, read, new = (2, 2, ("--max-new-tokens", "8")) if bench.small else (64, 64, ())
    found: Found = {}
    for method in METHODS[1:2] if bench.small else METHODS:
        output, took = bench.quantize(method, model, calib, pages)
        result, _ = bench.evaluate(output, data, read, "--baseline", str(model), *new)
        compared = {key: result["comparison"][key] for key in ("kl", "agreement", "cer_difference")}
        found[method] = {**took, **compared, "cer": result["model"]["cer"], "baseline_cer": result["baseline"]["cer"]}
    return found


def quantize_pages(method: str) -> Callable[[Bench], Found]:
    """A part that quantizes the 1B shape with one method."""

    def part(bench: Bench) -> Found:
        model, pages = bench.large(), bench.rendered()
        output, took = bench.quantize(method, model, str(pages), bench.pages, "--keep-duplicates")
        bench.made[method] = output
        return {**took, "pages": bench.pages, "goal_seconds": None if bench.small else GOALS[method]}

    return part


def read_pages(bench: Bench) -> Found:
    """How fast eval reads with the 1B shape; its random weights write to the limit."""
    new = 8 if bench.small else NEW_TOKENS
    count = min(bench.pages, 32)
    options = ("--max-new-tokens", str(new), "--keep-duplicates")
    result, took = bench.evaluate(bench.large(), str(bench.rendered()), count, *options)
    keys = ("seconds", "tokens", "pages_per_second", "tokens_per_second")
    return {"whole_" + key: value for key, value in took.items()} | {key: result["model"][key] for key in keys}


def serve_with_vllm(bench: Bench) -> Found:
    """Let vLLM read lines with the demo as gptq writes it, beside Transformers' reading of the same."""
    python = bench.vllm_python or Path(sys.executable)
    found, _ = bench.run([str(python), "-c", "import importlib.util as u; print(u.find_spec('vllm') is not None)"])
    if found.strip() != "True":
        raise LeftOut(f"vLLM is not installed for {python.name}")
    output, _ = bench.quantize("gptq", DEMO / "checkpoint", str(DEMO / "data/calib.jsonl"), 32)
    options = ("--backend", "vllm", "--python", str(python))
    result, took = bench.evaluate(output, str(DEMO / "data/heldout.jsonl"), 32, *options)
    return {**took, "cer": result["model"]["cer"], "runtime": result["model"]["runtime"]}


PARTS: dict[str, Callable[[Bench], Found]] = {
    "codes": compare_codes,
    "demo": read_demo,
    **{method: quantize_pages(method) for method in METHODS},
    "eval": read_pages,
    "vllm": serve_with_vllm,
}


def measure(bench: Bench, parts: Mapping[str, Callable[[Bench], Found]], note: Callable[[Found], None]) -> Found:
    """Run the parts one after the other, whatever becomes of each; `note` is given what is known after every one."""
    found: Found = {}
    for name, part in parts.items():
        started = time.perf_counter()
        try:
            if bench.left() < 5:
                raise LeftOut("no time left")
            found[name] = {"ok": True, **part(bench)}
        except LeftOut as left_out:
            found[name] = {"ok": None, "left_out": str(left_out)}
        except Exception as error:  # a benchmark that stops at the first fault is a wasted machine
            line = " ".join(str(error).split())
            found[name] = {"ok": False, "error": f"{type(error).__name__}: {line}"[:600]}
        found[name]["part_seconds"] = round(time.perf_counter() - started, 2)
        note(found)
        click.echo(f"{name}: {_in_words(found[name])}", err=True)
    return found


def describe(device: str) -> Found:
    """What the numbers depend on."""
    import torch
    import transformers

    gpu = torch.cuda.get_device_name() if device == "cuda" else None
    versions = {"torch": torch.__version__, "transformers": transformers.__version__, "cuda": torch.version.cuda}
    triton = importlib.util.find_spec("triton") is not None
    cores = len(os.sched_getaffinity(0))
    return {"gpu": gpu, "cores": cores, "python": platform.python_version(), "triton": triton, **versions}


def table(found: Mapping[str, Found]) -> str:
    """The parts as rows of Markdown."""
    rows = ["| part | result | seconds | GPU memory |", "|---|---|---|---|"]
    for name, part in found.items():
        memory = f"{part['peak_gpu_bytes'] / 1e9:.2f} GB" if part.get("peak_gpu_bytes") else ""
        seconds = f"{part['seconds']:.1f}" if "seconds" in part else f"{part['part_seconds']:.1f}"
        rows.append(f"| {name} | {_in_words(part)} | {seconds} | {memory} |")
    return "\n".join(rows)


def _in_words(part: Found) -> str:
    if part["ok"] is not True:
        return f"left out: {part['left_out']}" if part["ok"] is None else f"failed: {part['error']}"
    if "phases" in part:
        return ", ".join(f"{name} {seconds:.1f} s" for name, seconds in part["phases"].items())
    if "tokens_per_second" in part:
        return f"{part['pages_per_second']:.2f} pages/s, {part['tokens_per_second']:.0f} tokens/s"
    inner = {name: value for name, value in part.items() if isinstance(value, dict)}
    return "; ".join(f"{name} {_brief(value)}" for name, value in inner.items()) or "done"


def _brief(value: Found) -> str:
    keys = [key for key in ("equal", "error_ratio", "kl", "cer", "speedup") if value.get(key) is not None]
    return ", ".join(f"{key} {value[key]:.5g}" for key in keys)


@click.command(help=__doc__)
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", show_default=True)
@click.option("--small", is_flag=True, help="Tiny models and few pages: tries the script, measures nothing.")
@click.option("--pages", default=128, show_default=True, help="Calibration pages for the 1B shape.")
@click.option(
    "--part", "names", multiple=True, type=click.Choice(list(PARTS)), help="Only these parts; may be repeated."
)
@click.option("--minutes", default=7.7, show_default=True, help="Parts that find no time left are left out.")
@click.option("--vllm-python", type=click.Path(path_type=Path), help="A Python that has vLLM, if this one has not.")
@click.option(
    "--json",
    "file",
    type=click.Path(path_type=Path, dir_okay=False),
    default=HERE / "results/gpu.json",
    help="Where the result is written, after every part.  [default: results/gpu.json beside this file]",
)
def main(
    device: str,
    small: bool,
    pages: int,
    names: tuple[str, ...],
    minutes: float,
    vllm_python: Path | None,
    file: Path,
) -> None:
    with tempfile.TemporaryDirectory(prefix="hyocr-gpu-") as made:
        folder = Path(made)
        environment = checkout_environment(folder / "site", PACKAGES)
        sys.path[:0] = environment["PYTHONPATH"].split(os.pathsep)
        ends = time.monotonic() + 60 * minutes
        bench = Bench(device, small, 2 if small else pages, folder, environment, ends, vllm_python)
        how: Found = {"device": device, "small": small}
        parts = {name: part for name, part in PARTS.items() if name in (names or PARTS)}

        def note(found: Found) -> None:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(json.dumps({"how": how, "parts": found}, indent=2) + "\n", encoding="utf-8")

        try:
            how |= describe(device)
        except Exception as error:  # noted like any other part's
            how["error"] = f"{type(error).__name__}: {error}"
        found = measure(bench, parts, note)
    click.echo(table(found))
    if not all(part["ok"] is not False for part in found.values()):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
