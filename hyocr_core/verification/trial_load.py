"""Let a real runtime load a checkpoint and read a rendered line with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CheckpointError, MissingRuntimeError, RunError, one_line
from hyocr_core.formats import StoredFormats
from hyocr_core.formats.runtimes import Shapes
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample, prompt_text
from hyocr_core.runtimes.native import check_packages, load_native
from hyocr_core.runtimes.vllm_process import VllmProcess, vllm_version
from hyocr_core.verification.verdict import LoadRecord

if TYPE_CHECKING:
    from PIL.Image import Image

Runtime = Literal["transformers", "vllm"]

TEXT = "invoice 2026-04"
MAX_NEW_TOKENS = 32


def read_page(
    folder: Path, runtime: Runtime, formats: StoredFormats, shapes: Shapes, python: Path | None
) -> LoadRecord:
    """Read one line with `runtime`.

    formats, shapes: what stores the quantized linears, and their (N, K) by name. python: the interpreter that has vLLM;
    None for this one.
    """
    outcome: Literal["read", "failed", "cannot be tried here"] = "read"
    text = detail = ""
    try:
        processor = load_processor(folder)
        if runtime == "vllm":
            tokens = _with_vllm(folder, processor, python)
        else:
            tokens = _with_transformers(folder, formats, shapes, processor)
        text = processor.tokenizer.decode(tokens, skip_special_tokens=True)
    except MissingRuntimeError as error:
        outcome, detail = "cannot be tried here", str(error)
    except (CheckpointError, RunError) as error:
        outcome, detail = "failed", str(error)
    return LoadRecord(runtime=runtime, outcome=outcome, detail=detail, page=TEXT, text=text)


def draw_page() -> Image:
    """One line of text, 256x32: quick to read for any runtime."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", (256, 32), "white")
    ImageDraw.Draw(page).text((6, 5), TEXT, font=ImageFont.load_default(18), fill="black")
    return page


def _with_transformers(folder: Path, formats: StoredFormats, shapes: Shapes, processor: Any) -> list[int]:
    check_packages(formats.packages)
    inputs = build_sample(_record(), processor, with_answer=False).inputs
    return _generate(load_native(folder, torch.device("cpu"), unpack=formats.must_unpack(shapes)), inputs)


@torch.inference_mode()
def _generate(model: Any, inputs: dict[str, torch.Tensor]) -> list[int]:
    try:
        answer = model.generate(
            **inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS, output_logits=True, return_dict_in_generate=True
        )
    except Exception as error:  # whatever Transformers and the packages behind it raise is the checkpoint's fault
        raise CheckpointError(f"Transformers: {one_line(error, 300, named=True)}") from error
    if not all(bool(torch.isfinite(step).all()) for step in answer.logits):
        raise CheckpointError("Transformers: the logits are NaN or infinite")
    tokens: list[int] = answer.sequences[0, inputs["input_ids"].shape[1] :].tolist()
    return tokens


def _with_vllm(folder: Path, processor: Any, python: Path | None) -> list[int]:
    vllm_version(python)
    prompt = prompt_text(_record(), processor)
    tokens = build_sample(_record(), processor, with_answer=False).prompt_tokens + MAX_NEW_TOKENS
    with VllmProcess(folder, python, tokens) as vllm:
        return list(vllm.read(prompt, draw_page(), MAX_NEW_TOKENS).tokens)


def _record() -> Record:
    return Record("page", None, None, open_image=draw_page)
