"""What the scripts beside this one share: their command line, hyocr's own samples, and a checkpoint that is checked.

Each quantizes a full-precision HunyuanOCR checkpoint with another tool, so that `benchmarks/quality.py` can measure that
tool by the same instrument as hyocr: the same lines, as the same tokens and pixels, and the result read by hyocr's own
loader. The tools calibrate with the forward that Transformers computes, which is not the reference's (docs/forward.md);
the readers of the benchmark were trained to read with both. Only the decoder's linears are quantized, as by hyocr.
"""

from __future__ import annotations

import json
import shutil
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
GROUP_SIZE = 128
VISION_AND_HEAD = r"re:.*vision_tower.*", "lm_head"
"""What is left in full precision, as compressed-tensors names it."""


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
    """What is written beside the result. seconds: of quantizing and saving, samples and checks left out."""

    peer: str
    version: str
    torch: str
    transformers: str
    setting: str
    lines: int
    seconds: float


def command(package: str, settings: Collection[str], quantize: Quantize, text: str | None) -> click.Command:
    """The command line of one tool; bad input ends it with one line and exit code 2."""

    @click.command(help=text)
    @click.option("--model", type=click.Path(path_type=Path), required=True, help="Folder of the checkpoint.")
    @click.option("--calib", type=click.Path(path_type=Path), required=True, help="JSONL; all lines are used, in order.")
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
    original = _open(model)
    if output.exists():
        raise OutputError(f"{output} is there already; remove it, or name another folder")
    if find_spec(package) is None:
        raise MissingRuntimeError(f"{package} is not installed beside {sys.executable}: `make peers` makes such a place")
    samples = read_samples(model, calib, original.max_tokens)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{output.name}-", dir=output.parent) as folder:
        staged = Path(folder).resolve() / "checkpoint"
        begun = time.perf_counter()
        weights = quantize(Job(model.resolve(), samples, setting, staged))
        record = _record(package, setting, len(samples), time.perf_counter() - begun)
        finish(staged, original)
        check_kept(staged, weights)
        (staged / RECORD).write_text(json.dumps(asdict(record), indent=2) + "\n", encoding="utf-8")
        shutil.move(staged, output)
    return record


def _open(folder: Path) -> HunYuanVL:
    reader = CheckpointReader(folder)
    if "quantization_config" in reader.config:
        raise ConfigError(f"{folder}: is quantized already; give the full-precision checkpoint")
    return HunYuanVL(reader, torch.device("cpu"), "transformers")


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


def _record(package: str, setting: str, lines: int, seconds: float) -> Record:
    versions = (version(name) for name in (package, "torch", "transformers"))
    return Record(package, *versions, setting=setting, lines=lines, seconds=round(seconds, 1))
