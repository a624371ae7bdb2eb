"""Read the held-out lines with the checkpoint's own processor and `generate`, and report the character error rate."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from torch import Tensor
from transformers import AutoProcessor, HunYuanVLForConditionalGeneration

from hyocr_core.contract.backend import FORWARDS, Forward
from hyocr_core.runtimes.forward import set_forward

HERE = Path(__file__).resolve().parent


def edit_distance(first: str, second: str) -> int:
    """Levenshtein distance."""
    row = list(range(len(second) + 1))
    for i, left in enumerate(first, 1):
        previous, row[0] = row[0], i
        for j, right in enumerate(second, 1):
            previous, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, previous + (left != right))
    return row[-1]


def _conversation(folder: Path, row: dict[str, str], question: str | None) -> list[dict[str, Any]]:
    """What the official clients send."""
    with Image.open(folder / row["img_path"]) as opened:
        image = opened.convert("RGB")
    content = [{"type": "image", "image": image}, {"type": "text", "text": question or row["question"]}]
    return [{"role": "system", "content": ""}, {"role": "user", "content": content}]


def read_lines(
    checkpoint: Path, model: Any, data: Path, rows: list[dict[str, str]], batch: int, question: str | None
) -> Iterator[str]:
    """Greedy answers, in order. question: None asks what each row says."""
    processor = AutoProcessor.from_pretrained(checkpoint)  # type: ignore[no-untyped-call]
    for start in range(0, len(rows), batch):
        conversations = [_conversation(data.parent, row, question) for row in rows[start : start + batch]]
        inputs = processor.apply_chat_template(
            conversations, tokenize=True, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        with torch.inference_mode():
            made = model.generate(**inputs)
        yield from processor.batch_decode(made[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def round_to_nearest(weight: Tensor, group: int = 128) -> Tensor:
    """Symmetric int4 codes in groups along the inputs, with bf16 scales."""
    grouped = weight.float().view(len(weight), -1, group)
    scale = (grouped.abs().amax(-1, keepdim=True) / 7.5).bfloat16().float().clamp_min(1e-8)
    codes: Tensor = (grouped / scale).round().clamp(-8, 7)
    return (codes * scale).flatten(1).to(weight.dtype)


def quantize_decoder(model: Any) -> None:
    """Replace every decoder linear by its round-to-nearest int4 approximation."""
    for module in model.model.language_model.layers.modules():
        if isinstance(module, torch.nn.Linear):
            module.weight.data = round_to_nearest(module.weight.data)


def _bootstrap(errors: Tensor, lengths: Tensor, rounds: int = 2000) -> list[float]:
    generator = torch.Generator().manual_seed(0)
    picks = torch.randint(len(errors), (rounds, len(errors)), generator=generator)
    rates = errors[picks].sum(1) / lengths[picks].sum(1)
    return [round(100 * float(rates.quantile(q)), 3) for q in (0.025, 0.975)]


@click.command()
@click.argument("checkpoint", type=click.Path(path_type=Path, exists=True), default=HERE / "checkpoint")
@click.option("--data", type=click.Path(path_type=Path, exists=True), default=HERE / "data" / "heldout.jsonl")
@click.option("--limit", default=None, type=int, help="Read only the first lines.")
@click.option("--batch", default=1, show_default=True, help="Lines per generate call.")
@click.option("--forward", type=click.Choice(FORWARDS), default=FORWARDS[0], show_default=True)
@click.option("--question", help="Ask this instead of what each line says.")
@click.option("--rtn", is_flag=True, help="Emulate round-to-nearest int4 in groups of 128 first.")
@click.option("--show", default=0, help="Print this many wrong lines.")
def main(
    checkpoint: Path,
    data: Path,
    limit: int | None,
    batch: int,
    forward: Forward,
    question: str | None,
    rtn: bool,
    show: int,
) -> None:
    """Measure the character error rate."""
    rows = [json.loads(line) for line in data.read_text(encoding="utf-8").splitlines()][:limit]
    model: Any = HunYuanVLForConditionalGeneration.from_pretrained(checkpoint, dtype=torch.bfloat16)
    set_forward(model.eval(), forward)
    if rtn:
        quantize_decoder(model)
    begun = time.monotonic()
    answers = list(read_lines(checkpoint, model, data, rows, batch, question))
    pairs = [(row["answer"], answer) for row, answer in zip(rows, answers, strict=True)]
    errors = torch.tensor([float(edit_distance(*pair)) for pair in pairs])
    lengths = torch.tensor([float(len(right)) for right, _ in pairs])
    for right, read in [pair for pair in pairs if pair[0] != pair[1]][:show]:
        click.echo(f"{right!r} read as {read!r}")
    result = {
        "lines": len(rows),
        "cer_percent": round(100 * float(errors.sum() / lengths.sum()), 3),
        "cer_95": _bootstrap(errors, lengths),
        "exact_percent": round(100 * float((errors == 0).float().mean()), 2),
        "seconds": round(time.monotonic() - begun, 1),
    }
    click.echo(json.dumps(result))


if __name__ == "__main__":
    main()
