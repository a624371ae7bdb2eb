"""Let a real runtime load a checkpoint and read a rendered line with it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch

from hyocr_core.contract.backend import Forward
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CheckpointError, MissingRuntimeError, RunError, one_line
from hyocr_core.formats import StoredFormats
from hyocr_core.formats.runtimes import VLLM_CPU, Shapes
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.prompts import chat
from hyocr_core.pages.samples import build_sample, prompt_text
from hyocr_core.runtimes.chat_requests import chat_body, llama_fields
from hyocr_core.runtimes.concurrency import MAX_NEW_TOKENS, trial_pages, try_concurrency
from hyocr_core.runtimes.endpoint import Endpoint, NoAnswerError
from hyocr_core.runtimes.forward import probe
from hyocr_core.runtimes.llama_installed import find_llama_server
from hyocr_core.runtimes.llama_server import GgufFiles, LlamaServer
from hyocr_core.runtimes.native import check_packages, load_native
from hyocr_core.runtimes.vllm_installed import find_vllm
from hyocr_core.runtimes.vllm_process import VllmProcess, VllmRequest
from hyocr_core.verification.verdict import LoadRecord, TogetherRecord

Runtime = Literal["transformers", "vllm", "llama.cpp"]

SECONDS_FOR_A_PAGE = 300


def read_page(
    folder: Path, runtime: Runtime, formats: StoredFormats, shapes: Shapes, python: Path | None
) -> LoadRecord:
    """Read one line with `runtime`; with vLLM several pages, too, one by one and all at once.

    formats, shapes: what stores the quantized linears, and their (N, K) by name. python: the interpreter that has vLLM;
    None for this one.
    """
    pages = trial_pages()
    outcome: Literal["read", "failed", "cannot be tried here"] = "read"
    text = detail = ""
    together = forward = None
    try:
        processor = load_processor(folder)
        if runtime == "vllm":
            refusal = next(
                (one.why for one in formats.runtimes(shapes) if one.name == VLLM_CPU and one.loads == "no"), ""
            )
            text, together, forward = _with_vllm(folder, processor, python, refusal)
        elif runtime == "llama.cpp":
            text, forward = _with_llama_cpp(folder, pages[0], processor), "reference"
        else:
            tokens = _with_transformers(folder, formats, shapes, pages[0], processor)
            text, forward = processor.tokenizer.decode(tokens, skip_special_tokens=True), probe()
    except MissingRuntimeError as error:
        outcome, detail = "cannot be tried here", str(error)
    except (CheckpointError, RunError) as error:
        outcome, detail = "failed", str(error)
    return LoadRecord(
        runtime=runtime,
        outcome=outcome,
        detail=detail,
        page=pages[0].answer or "",
        text=text,
        forward=forward,
        together=together,
    )


def _with_transformers(folder: Path, formats: StoredFormats, shapes: Shapes, page: Record, processor: Any) -> list[int]:
    check_packages(formats.packages)
    inputs = build_sample(page, processor, with_answer=False).inputs
    return _generate(load_native(folder, torch.device("cpu"), unpacking=formats.unpacking(shapes)), inputs)


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


def _with_llama_cpp(folder: Path, page: Record, processor: Any) -> str:
    """What a server reads on the page, of the GGUF files in the folder."""
    files = GgufFiles.of(folder)
    program = find_llama_server(None)
    longest = build_sample(page, processor, with_answer=False).prompt_tokens + MAX_NEW_TOKENS
    body = chat_body(
        files.text.name, chat(page, with_answer=False), page.open_image(), MAX_NEW_TOKENS, llama_fields(1, longest)
    )
    with LlamaServer(program, files, longest, at_once=1) as server:
        try:
            return Endpoint(server.url, SECONDS_FOR_A_PAGE).chat(body).text
        except NoAnswerError as error:
            raise RunError(f"llama.cpp: {server.reason() or error}") from error


def _with_vllm(
    folder: Path, processor: Any, python: Path | None, refusal: str
) -> tuple[str, TogetherRecord, Forward | None]:
    """The text of the first trial page, what became of all of them at once, and whose forward read them.

    refusal: why a CPU build is known not to load the checkpoint, which is then no fault of it; empty if it does.
    """
    found = find_vllm(python)
    pair = found.pair
    pages = trial_pages()
    longest = max(build_sample(page, processor, with_answer=False).prompt_tokens for page in pages) + MAX_NEW_TOKENS
    try:
        with VllmProcess(folder, python, longest, len(pages)) as vllm:
            trial = try_concurrency(partial(_texts, vllm, processor))
    except (CheckpointError, RunError) as error:
        if refusal and found.build == "cpu":
            raise MissingRuntimeError(f"{found.distribution} {found.version} does not load it: {refusal}") from error
        raise
    finding = f"{trial.finding}: {pair.remedy}" if trial.changed else trial.finding
    together = TogetherRecord(versions=str(pair), changed=trial.changed, finding=finding)
    return trial.alone[0], together, found.forward


def _texts(vllm: VllmProcess, processor: Any, pages: Sequence[Record]) -> list[str]:
    requests = [VllmRequest(prompt_text(page, processor), page.open_image(), MAX_NEW_TOKENS) for page in pages]
    answers = sorted(vllm.read(requests), key=lambda answer: answer.number)
    return [processor.tokenizer.decode(answer.tokens, skip_special_tokens=True) for answer in answers]
