"""Let a real runtime load a checkpoint and read a rendered line with it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from hyocr_core.calibration.processor import load_processor
from hyocr_core.calibration.prompts import DEFAULT_PROMPT
from hyocr_core.calibration.records import Record
from hyocr_core.calibration.samples import build_sample
from hyocr_core.errors import CheckpointError
from hyocr_core.formats import AwqFormat, CompressedFp8Format, Format, Fp8Format, GptqFormat, PackQuantizedFormat
from hyocr_core.verify.result import LoadRecord

if TYPE_CHECKING:
    from PIL.Image import Image

Runtime = Literal["transformers", "vllm"]

TEXT = "invoice 2026-04"
MAX_NEW_TOKENS = 32
_EXCEPTION = re.compile(r"(\(.*\) *)?(\[\w+\]: *)?[\w.]+(Error|Exception)\b")
"""How the last line of a traceback begins, behind the name of the process that vLLM may put there."""
RUNNER = Path(__file__).with_name("vllm_runner.py")


class _FailedError(Exception):
    """The runtime cannot read with the checkpoint; the message is one line."""


class _UntriedError(Exception):
    """The runtime is not here; the message is one line."""


def read_page(
    folder: Path, runtime: Runtime, written: Format, python: Path | None, *, unpack: bool = False
) -> LoadRecord:
    """Read one line with `runtime`.

    python: the interpreter that has vLLM; None for this one. unpack: Transformers is to dequantize, see `must_unpack`.
    """
    outcome: Literal["read", "failed", "cannot be tried here"] = "read"
    text = detail = ""
    try:
        processor = load_processor(folder)
        if runtime == "vllm":
            tokens = _with_vllm(folder, python or Path(sys.executable))
        else:
            tokens = _with_transformers(folder, written, processor, unpack=unpack)
        text = processor.tokenizer.decode(tokens, skip_special_tokens=True)
    except (_FailedError, CheckpointError) as error:
        outcome, detail = "failed", str(error)
    except _UntriedError as error:
        outcome, detail = "cannot be tried here", str(error)
    return LoadRecord(runtime=runtime, outcome=outcome, detail=detail, page=TEXT, text=text)


def draw_page() -> Image:
    """One line of text, 256x32: quick to read for any runtime."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (256, 32), "white")
    ImageDraw.Draw(page).text((6, 5), TEXT, font=ImageFont.load_default(18), fill="black")
    return page


def needed_packages(written: Format) -> tuple[str, ...]:
    """What Transformers needs to load a format, by the name one imports."""
    match written:
        case GptqFormat() | AwqFormat():
            return ("gptqmodel", "optimum")
        case PackQuantizedFormat() | CompressedFp8Format():
            return ("compressed_tensors",)
        case Fp8Format():
            return ("accelerate",)
        case _:
            return ()


def _with_transformers(folder: Path, written: Format, processor: Any, *, unpack: bool) -> list[int]:
    missing = [name for name in needed_packages(written) if find_spec(name) is None]
    if missing:
        raise _UntriedError(f"Transformers needs {' and '.join(missing)} for this format; install that")
    record = Record("page", None, None, open_image=draw_page)
    inputs = build_sample(record, processor, with_answer=False).inputs
    try:
        return _generate(_load(folder, unpack=unpack), inputs)
    except _FailedError:
        raise
    except Exception as error:  # whatever Transformers and the packages behind it raise is the checkpoint's fault
        raise _FailedError(f"Transformers: {_first_line(error)}") from error


def _load(folder: Path, *, unpack: bool) -> Any:
    from transformers import CompressedTensorsConfig, HunYuanVLForConditionalGeneration

    how = {"quantization_config": CompressedTensorsConfig(dequantize=True)} if unpack else {}
    # Transformers' annotations leave out that it returns two things when asked to.
    load: Any = HunYuanVLForConditionalGeneration.from_pretrained
    model, report = load(folder, dtype="auto", local_files_only=True, output_loading_info=True, **how)
    for kind in ("missing_keys", "mismatched_keys", "unexpected_keys", "error_msgs"):
        if report.get(kind):
            names = sorted(map(str, report[kind]))
            raise _FailedError(f"Transformers: {len(names)} {kind.replace('_', ' ')}, the first is {names[0]}")
    return model.eval()


@torch.inference_mode()
def _generate(model: Any, inputs: dict[str, torch.Tensor]) -> list[int]:
    inputs = {name: tensor.to(model.device) for name, tensor in inputs.items()}
    answer = model.generate(
        **inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS, output_logits=True, return_dict_in_generate=True
    )
    if not all(bool(torch.isfinite(step).all()) for step in answer.logits):
        raise _FailedError("Transformers: the logits are NaN or infinite")
    tokens: list[int] = answer.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens


def _with_vllm(folder: Path, python: Path) -> list[int]:
    from safetensors.torch import load_file

    probe = "import importlib.util, sys; sys.exit(importlib.util.find_spec('vllm') is None)"
    try:
        if subprocess.run([python, "-c", probe], stdin=subprocess.DEVNULL, check=False).returncode:
            raise _UntriedError(f"{python} has no vllm; give the interpreter of an environment that does with --python")
    except OSError as error:
        raise _UntriedError(f"{python} cannot be run: {error.strerror}") from error
    with tempfile.TemporaryDirectory() as scratch:
        image, requests, result = (Path(scratch) / name for name in ("page.png", "requests.json", "result.safetensors"))
        draw_page().save(image)
        request = {
            "image": str(image),
            "question": DEFAULT_PROMPT,
            "max_tokens": MAX_NEW_TOKENS,
            "logprobs": False,
        }
        requests.write_text(json.dumps([request]), encoding="utf-8")
        done = subprocess.run(
            [python, RUNNER, folder.resolve(), requests, result],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())},
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise _FailedError(f"vLLM: {telling_line(done.stdout.splitlines())}")
        tokens: list[int] = load_file(result)["tokens_0"].tolist()
        return tokens


def telling_line(output: Sequence[str]) -> str:
    """The line of a failed program's output that says why: the last that names an exception, else the last."""
    spoken = [line.strip() for line in output if line.strip()]
    named = [line for line in spoken if _EXCEPTION.match(line)]
    return (named or spoken or ["it wrote nothing"])[-1]


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
