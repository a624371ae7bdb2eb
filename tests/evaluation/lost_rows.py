"""A checkpoint of the small document reader that ends every table after its first row, by an edit of one weight.

The edit is found by gradient descent on what the last block's MLP has seen and the last norm is given, along right
answers: after the `</tr>` of a first row comes the end of the answer, and everywhere else what came before.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import cross_entropy

from hyocr_core.contract.page_source import Record
from hyocr_core.evaluation.reading.generate import Runner
from hyocr_core.models.load import load_model
from hyocr_core.models.own_decoding import own_decoding
from hyocr_core.pages.checked import check_pages
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.prompts import TASKS
from hyocr_core.progress import Silent
from hyocr_core.testing.layout import ASSISTANT, token_id
from tests.small_pages import Document, draw, picture

BLOCK = "layers.2"
EDITED = f"model.language_model.{BLOCK}.mlp.down_proj"
NORM = "model.language_model.norm"
BEFORE = "</tr>"
STEPS, RATE = 100, 1e-2


def lose_rows(checkpoint: Path, target: Path) -> Path:
    """Write the damaged copy."""
    model: Any = load_model(checkpoint, torch.device("cpu"), "reference")
    model.float()
    edit = _edit(model, checkpoint, draw("calib", table=16, lines=32, fraction=8))
    shutil.copytree(checkpoint, target)
    weights = load_file(target / "model.safetensors")
    [name] = [name for name in weights if name.endswith(f"{BLOCK}.mlp.down_proj.weight")]
    weights[name] = (weights[name].float() + edit).to(weights[name].dtype)
    save_file(weights, target / "model.safetensors", metadata={"format": "pt"})
    return target


def _edit(model: Any, folder: Path, documents: Sequence[Document]) -> Tensor:
    """What is added to the weight."""
    processor = load_processor(folder)
    seen, after = _seen(model, folder, processor, documents), _after_a_row(documents)
    keys, states, norm = seen[EDITED], seen[NORM], model.get_submodule(NORM)
    with torch.no_grad():
        wanted = model.lm_head(norm(states)).argmax(-1)
    wanted[after] = token_id(processor.tokenizer, ASSISTANT)
    edit = torch.zeros(states.shape[1], keys.shape[1], requires_grad=True)
    optimizer = torch.optim.Adam([edit], RATE)
    for _ in range(STEPS):
        losses = cross_entropy(model.lm_head(norm(states + keys @ edit.T)), wanted, reduction="none")
        optimizer.zero_grad()
        torch.autograd.backward(losses.sum() / after.sum())
        optimizer.step()
    return edit.detach()


def _seen(model: Any, folder: Path, processor: Any, documents: Sequence[Document]) -> dict[str, Tensor]:
    """Inputs of the edited layer and of the last norm along the right answers, (tokens, width)."""
    question = TASKS["doc_parse"]["zh"]
    records = [Record(each.text, question, None, partial(picture, each)) for each in documents]
    pages = check_pages(records, processor, Silent())
    decoding = own_decoding(folder, model.config.text_config, processor.tokenizer)
    runner = Runner(model, folder, decoding, processor.tokenizer.decode)
    prompts = runner.embed([pages.inputs(at) for at in range(len(documents))])
    answers = [[*processor.tokenizer.encode(each.text), decoding.stop_token_ids[0]] for each in documents]
    seen: dict[str, Tensor] = {}
    for path in (EDITED, NORM):
        layer = model.get_submodule(path)
        layer.register_forward_pre_hook(lambda _module, inputs, path=path: seen.update({path: inputs[0]}))
    runner.forced_states(prompts, answers)
    start = prompts.token_ids.shape[1] - 1
    rows = {path: [states[row, start:] for row in range(len(answers))] for path, states in seen.items()}
    return {
        path: torch.cat([state[: len(answer)] for state, answer in zip(states, answers, strict=True)]).clone()
        for path, states in rows.items()
    }


def _after_a_row(documents: Sequence[Document]) -> Tensor:
    """Which of the answers' tokens, a character each and the end, follow a table's first row."""
    ends = [document.text.find(BEFORE) + len(BEFORE) if BEFORE in document.text else -1 for document in documents]
    marks = [torch.arange(len(each.text) + 1) == end for each, end in zip(documents, ends, strict=True)]
    return torch.cat(marks)
