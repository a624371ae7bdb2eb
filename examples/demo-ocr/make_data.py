"""Write a reader's held-out evaluation pages and calibration pages, the same bytes on every run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
from lines import Page, Rng, random_page
from PIL import Image
from readers import QUESTION, QUESTIONS, READERS, place
from small_documents import DOCUMENTS, Document, random_document

SEEDS = {"heldout": 20_001, "calib": 20_002}
NAMES = (*READERS, DOCUMENTS)

Draw = Callable[[Rng, str], Page | Document]


def drawing(name: str) -> tuple[str, Draw]:
    """What a reader is asked about its pages, and what draws one of a split."""
    if name == DOCUMENTS:
        return QUESTIONS[1], random_document
    reader = READERS[name]
    return QUESTION, lambda rng, split: random_page(rng, reader, split)


def write_split(folder: Path, name: str, split: str, rows: int) -> None:
    """Render the rows of one split; no text occurs twice, and no line of it is ever trained on (see split_of)."""
    rng = np.random.default_rng(SEEDS[split])
    question, draw = drawing(name)
    seen: set[str] = set()
    records: list[dict[str, str]] = []
    while len(records) < rows:
        page = draw(rng, split)
        if page.text in seen:
            continue
        seen.add(page.text)
        image = f"images/{split}-{len(records):04d}.png"
        Image.fromarray(page.pixels).save(folder / image, optimize=True)
        records.append({"question": question, "answer": page.text, "img_path": image})
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def write_data(folder: Path, name: str, heldout: int, calib: int) -> None:
    """Write both splits with their images; those of an earlier run go."""
    shutil.rmtree(folder / "images", ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    write_split(folder, name, "heldout", heldout)
    write_split(folder, name, "calib", calib)


@click.command()
@click.option("--reader", "name", type=click.Choice(NAMES), default="demo", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder, instead of the reader's own.")
@click.option("--heldout", default=512, help="Held-out rows.")
@click.option("--calib", default=128, help="Calibration rows.")
def main(name: str, out: Path | None, heldout: int, calib: int) -> None:
    """Generate a reader's evaluation and calibration pages."""
    folder = out or place("data", name)
    write_data(folder, name, heldout, calib)
    click.echo(f"{heldout} held-out and {calib} calibration pages in {folder}")


if __name__ == "__main__":
    main()
