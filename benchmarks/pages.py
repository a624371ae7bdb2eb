"""Rendered pages of made-up words, with their text, as a calibration source."""

from __future__ import annotations

import json
import random
import string
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

WIDTH, HEIGHT = 1024, 768
LINE, MARGIN, COLUMNS = 44, 32, 56
QUESTION = "Extract the text in the image."
ANSWER = 160  # bytes, and so tokens: with the image, about the length of the pages that the peers were timed on


def write_pages(folder: Path, count: int, seed: int, size: tuple[int, int] = (WIDTH, HEIGHT)) -> Path:
    """Write `count` pages of this width and height below `folder`; the JSONL file that lists them."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)  # noqa: S311
    font = ImageFont.load_default(26)
    rows = []
    for index in range(count):
        lines = _lines(rng, size)
        page = Image.new("RGB", size, "white")
        draw = ImageDraw.Draw(page)
        for number, line in enumerate(lines):
            draw.text((MARGIN, MARGIN + number * LINE), line, fill="black", font=font)
        name = f"page-{index:02d}.png"
        page.save(folder / name)
        rows.append({"question": QUESTION, "answer": " ".join(lines)[:ANSWER], "img_path": name})
    source = folder / "pages.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return source


def _lines(rng: random.Random, size: tuple[int, int]) -> list[str]:
    width, height = size
    columns = COLUMNS * width // WIDTH
    lines = []
    for _ in range((height - 2 * MARGIN) // LINE):
        words = ("".join(rng.choices(string.ascii_lowercase, k=rng.randint(2, 9))) for _ in range(columns))
        lines.append(" ".join(words)[:columns])
    return lines
