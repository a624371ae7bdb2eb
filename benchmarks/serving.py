"""How many pages vLLM reads in a second with the demo checkpoint, one at a time and eight at once.

Loading is not counted. Whether the texts are the same is, for vLLM mixes up pages with a Transformers below 5.20.1.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from hyocr_core.contract.page_source import Record
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import prompt_text
from hyocr_core.pages.sources import open_source, select
from hyocr_core.runtimes.vllm_installed import find_vllm
from hyocr_core.runtimes.vllm_process import VllmProcess, VllmRequest

DEMO = Path(__file__).parents[1] / "examples/demo-ocr"
AT_ONCE = (1, 8)
MAX_NEW_TOKENS = 64
MAX_TOKENS = 512


@dataclass(frozen=True)
class Measured:
    """changed: pages with another text than one at a time."""

    at_once: int
    pages: int
    tokens: int
    seconds: float
    changed: int


def read(
    records: Sequence[Record], checkpoint: Path, python: Path | None, at_once: int
) -> tuple[float, list[list[int]]]:
    """Seconds for all pages, and the tokens of each."""
    processor = load_processor(checkpoint)
    requests = [VllmRequest(prompt_text(each, processor), each.open_image(), MAX_NEW_TOKENS) for each in records]
    with VllmProcess(checkpoint, python, MAX_TOKENS, at_once) as vllm:
        answers = sorted(vllm.read(requests), key=lambda answer: answer.number)
    return sum(answer.seconds for answer in answers), [list(answer.tokens) for answer in answers]


@click.command(help=__doc__)
@click.option("--python", type=click.Path(path_type=Path), help="Interpreter that has vLLM.  [default: this one]")
@click.option("--checkpoint", type=click.Path(path_type=Path), default=DEMO / "checkpoint", show_default=True)
@click.option("--data", default=str(DEMO / "data/heldout.jsonl"), show_default=True)
@click.option("--pages", default=128, show_default=True)
@click.option("--output", type=click.Path(path_type=Path), help="Write the numbers there as JSON.")
def main(python: Path | None, checkpoint: Path, data: str, pages: int, output: Path | None) -> None:
    pair = find_vllm(python).pair
    records = select(open_source(data), pages, 0)
    found: list[Measured] = []
    alone: list[list[int]] = []
    for at_once in AT_ONCE:
        seconds, texts = read(records, checkpoint, python, at_once)
        alone = alone or texts
        changed = sum(left != right for left, right in zip(alone, texts, strict=True))
        found.append(Measured(at_once, len(texts), sum(map(len, texts)), seconds, changed))
        measured = found[-1]
        click.echo(
            f"{at_once} at once: {measured.pages / seconds:.1f} pages/s, {measured.tokens / seconds:.0f} tokens/s, "
            f"{changed} of {measured.pages} with another text"
        )
    if output is not None:
        told = {"versions": str(pair), "measured": [asdict(each) for each in found]}
        output.write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
