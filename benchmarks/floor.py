"""Time the calibration forward alone: what no method that looks at activations can do without.

Each page goes once through the vision tower and once through the decoder of Transformers' own model: bf16, SDPA,
weights loaded before the clock starts, no head. Prints one line of JSON: seconds, cpu_seconds, pages, tokens.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import click


def page_inputs(processor: Any, folder: Path, row: dict[str, str]) -> Any:
    """One page and its answer through the processor and the chat template."""
    image = {"type": "image", "image": str(folder / row["img_path"])}
    messages = [
        {"role": "system", "content": ""},
        {"role": "user", "content": [image, {"type": "text", "text": row["question"]}]},
        {"role": "assistant", "content": [{"type": "text", "text": row["answer"]}]},
    ]
    return processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")


@click.command(help=__doc__)
@click.argument("model_folder", type=click.Path(path_type=Path, exists=True))
@click.argument("source", type=click.Path(path_type=Path, exists=True))
def main(model_folder: Path, source: Path) -> None:
    import torch
    from transformers import HunYuanVLForConditionalGeneration, HunYuanVLProcessor

    processor = HunYuanVLProcessor.from_pretrained(model_folder)
    rows = [json.loads(line) for line in source.read_text(encoding="utf-8").splitlines()]
    pages = [page_inputs(processor, source.parent, row) for row in rows]
    model = HunYuanVLForConditionalGeneration.from_pretrained(
        model_folder, dtype=torch.bfloat16, attn_implementation="sdpa"
    )
    # Loading maps the weights; touching them moves the reading from disk out of the timed part.
    for parameter in model.parameters():
        parameter.data = parameter.data.clone()
    started, started_cpu = time.perf_counter(), time.process_time()
    with torch.inference_mode():
        for page in pages:
            model.model(**page, use_cache=False)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - started_cpu
    tokens = sum(page["input_ids"].shape[1] for page in pages)
    print(json.dumps({"seconds": seconds, "cpu_seconds": cpu_seconds, "pages": len(pages), "tokens": tokens}))


if __name__ == "__main__":
    main()
