"""Write data/: held-out evaluation lines and calibration lines, the same bytes on every run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import click
import numpy as np
from lines import QUESTION, random_line
from PIL import Image

HERE = Path(__file__).resolve().parent
SEEDS = {"heldout": 20_001, "calib": 20_002}


def write_split(folder: Path, split: str, rows: int) -> None:
    """Render the rows of one split; no text occurs twice, and none of it is ever trained on (see split_of)."""
    rng = np.random.default_rng(SEEDS[split])
    seen: set[str] = set()
    records: list[dict[str, str]] = []
    while len(records) < rows:
        line = random_line(rng, split)
        if line.text in seen:
            continue
        seen.add(line.text)
        name = f"images/{split}-{len(records):04d}.png"
        Image.fromarray(line.pixels).save(folder / name, optimize=True)
        records.append({"question": QUESTION, "answer": line.text, "img_path": name})
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    (folder / f"{split}.jsonl").write_text(text, encoding="utf-8")


@click.command()
@click.option("--out", type=click.Path(path_type=Path), default=HERE / "data", show_default=False)
@click.option("--heldout", default=512, help="Held-out rows.")
@click.option("--calib", default=128, help="Calibration rows.")
def main(out: Path, heldout: int, calib: int) -> None:
    """Generate the demo's evaluation and calibration lines."""
    shutil.rmtree(out / "images", ignore_errors=True)
    (out / "images").mkdir(parents=True)
    write_split(out, "heldout", heldout)
    write_split(out, "calib", calib)
    click.echo(f"{heldout} held-out and {calib} calibration lines in {out}")


if __name__ == "__main__":
    main()
