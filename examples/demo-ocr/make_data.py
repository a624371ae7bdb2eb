"""Write a reader's held-out evaluation pages and calibration pages, the same bytes on every run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import numpy as np
from lines import random_page
from PIL import Image
from readers import QUESTION, READERS, Reader, place

SEEDS = {"heldout": 20_001, "calib": 20_002}


def write_split(folder: Path, reader: Reader, split: str, rows: int) -> None:
    """Render the rows of one split; no text occurs twice, and no line of it is ever trained on (see split_of)."""
    rng = np.random.default_rng(SEEDS[split])
    seen: set[str] = set()
    records: list[dict[str, str]] = []
    while len(records) < rows:
        page = random_page(rng, reader, split)
        if page.text in seen:
            continue
        seen.add(page.text)
        name = f"images/{split}-{len(records):04d}.png"
        Image.fromarray(page.pixels).save(folder / name, optimize=True)
        records.append({"question": QUESTION, "answer": page.text, "img_path": name})
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


def write_data(folder: Path, reader: Reader, heldout: int, calib: int) -> None:
    """Write both splits with their images; those of an earlier run go."""
    shutil.rmtree(folder / "images", ignore_errors=True)
    (folder / "images").mkdir(parents=True)
    write_split(folder, reader, "heldout", heldout)
    write_split(folder, reader, "calib", calib)


@click.command()
@click.option("--reader", "name", type=click.Choice(list(READERS)), default="demo", show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="Folder, instead of the reader's own.")
@click.option("--heldout", default=512, help="Held-out rows.")
@click.option("--calib", default=128, help="Calibration rows.")
def main(name: str, out: Path | None, heldout: int, calib: int) -> None:
    """Generate a reader's evaluation and calibration pages."""
    folder = out or place("data", name)
    write_data(folder, READERS[name], heldout, calib)
    click.echo(f"{heldout} held-out and {calib} calibration pages in {folder}")


if __name__ == "__main__":
    main()
