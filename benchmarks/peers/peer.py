"""What the scripts beside this one share: their command line, hyocr's own samples, and a checkpoint that is checked.

Each quantizes a full-precision HunyuanOCR checkpoint with another tool, so that `benchmarks/quality.py` can measure the
tool with the same instrument as hyocr: the same lines, as the same tokens and pixels, and the result read by hyocr's
loader. The tools calibrate with Transformers' forward, which is not the reference's (docs/forward.md); the benchmark's
readers were trained to read with both. Only the decoder's linears are quantized, as by hyocr.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import click
import torch
from saved import check_kept, finish
from torch import Tensor

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.errors import CalibrationError, ConfigError, HyocrError, MissingRuntimeError, OutputError
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.pages.jsonl import read_jsonl
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import Failure, iter_samples

RECORD = "peer.json"
"""Name of the file beside the result that says how it was made."""


@dataclass(frozen=True)
class Job:
    """model: folder of the full-precision checkpoint. staged: folder that the tool saves into, empty.

    samples: as `hyocr_core.pages.samples.Sample.inputs`, the whole conversation with its answer, one by one.
    """

    model: Path
    samples: list[dict[str, Tensor]]
    setting: str
    staged: Path


Quantize = Callable[[Job], Mapping[str, Tensor]]
"""Quantize and save; return every parameter as the tool then holds it, dequantized, by in-memory name."""


@dataclass(frozen=True)
class Record:
    """How a checkpoint was made. seconds: of quantizing and saving, without samples and checks."""

    setting: str
    versions: dict[str, str]
    lines: int
    seconds: float


def command(package: str, settings: Collection[str], quantize: Quantize, text: str | None) -> click.Command:
    """The command line of one tool; bad input ends it with one line and exit code 2."""

    @click.command(help=text)
    @click.option("--model", type=click.Path(path_type=Path), required=True, help="Folder of the checkpoint.")
    @click.option("--calib", type=click.Path(path_type=Path), required=True, help="JSONL; all lines, in their order.")
    @click.option("--output", type=click.Path(path_type=Path), required=True, help="Folder to be made.")
    @click.option("--setting", type=click.Choice(list(settings)), required=True)
    def main(model: Path, calib: Path, output: Path, setting: str) -> None:
        try:
            record = run(package, model, calib, output, setting, quantize)
        except HyocrError as error:
            click.echo(f"{Path(sys.argv[0]).name}: error: {error}", err=True)
            raise SystemExit(error.exit_code) from error
        click.echo(json.dumps(asdict(record)))

    return main


def run(package: str, model: Path, calib: Path, output: Path, setting: str, quantize: Quantize) -> Record:
    """Quantize; the folder is there only when hyocr's loader gives the very weights that the tool had in memory.

    Raises BadInputError before any long work, RunError when the weights differ.
    """
    original = CheckpointReader(model)
    architecture = _check(original)
    if output.exists():
        raise OutputError(f"{output} is there already; remove it, or name another folder")
    if find_spec(package) is None:
        raise MissingRuntimeError(f"{sys.executable} has no {package}: use that of an environment of `make peers`")
    versions = {name: version(name) for name in (package, "torch", "transformers")}
    samples = read_samples(model, calib, architecture.max_tokens)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        job = Job(model.resolve(), samples, setting, Path(folder).resolve() / "checkpoint")
        begun = time.perf_counter()
        weights = quantize(job)
        record = Record(setting, versions, len(samples), round(time.perf_counter() - begun, 1))
        finish(job.staged, original, architecture.memory_names.values())
        check_kept(job.staged, weights)
        (job.staged / RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
        job.staged.rename(output)
    return record


def _check(original: CheckpointReader) -> HunYuanVL:
    if "quantization_config" in original.config:
        raise ConfigError(f"{original.folder}: is quantized already; give the full-precision checkpoint")
    return HunYuanVL(original, torch.device("cpu"), "transformers")


def read_samples(model: Path, calib: Path, max_tokens: int) -> list[dict[str, Tensor]]:
    """The inputs of every line, as `hyocr quant` calibrates on them.

    Raises CalibrationError naming the first line that cannot be used: a draw is to be the same for all tools.
    """
    processor = load_processor(model)
    samples = []
    for item in iter_samples(read_jsonl(calib), processor, with_answer=True, max_tokens=max_tokens):
        if isinstance(item, Failure):
            raise CalibrationError(f"{item.name}: {item.reason}")
        samples.append(item.inputs)
    return samples
