"""Documents for the small reader that examples/demo-ocr trains, as rows, and as OmniDocBench lays them out."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.benchmark_folders import element, lay_out
from tests.conftest import DEMO

sys.path.insert(0, str(DEMO))

from readers import QUESTIONS
from small_documents import Document, random_document

__all__ = ["READER", "Document", "as_omnidocbench", "draw", "picture", "rows"]

READER = DEMO / "checkpoint-documents"


def draw(split: str, **wanted: int) -> list[Document]:
    """Documents of a split, so many of each kind, no two alike."""
    rng, left, found = np.random.default_rng(5), dict(wanted), dict[str, Document]()
    while any(left.values()):
        document = random_document(rng, split)
        if left.get(document.kind) and document.text not in found:
            found[document.text] = document
            left[document.kind] -= 1
    return list(found.values())


def picture(document: Document) -> Image.Image:
    return Image.fromarray(document.pixels).convert("RGB")


def rows(folder: Path, documents: Sequence[Document]) -> Path:
    """A file of rows with their pages beside it."""
    folder.mkdir(parents=True)
    lines = []
    for number, document in enumerate(documents):
        picture(document).save(folder / f"{number:03}.png")
        row = {"question": QUESTIONS[1], "answer": document.text, "img_path": f"{number:03}.png"}
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    return folder / "rows.jsonl"


def as_omnidocbench(folder: Path, documents: Sequence[Document]) -> Path:
    """A page for each, with one element that fills it."""
    pages = {}
    for number, document in enumerate(documents):
        image = picture(document)
        box = (0, 0, image.width, image.height)
        pages[f"{document.kind}-{number}.png"] = image, [element(CATEGORIES[document.kind], 1, box, **_said(document))]
    return lay_out(folder, pages)


CATEGORIES = {"table": "table", "fraction": "equation_isolated", "lines": "text_block"}


def _said(document: Document) -> dict[str, Any]:
    keys = {"table": "html", "fraction": "latex", "lines": "text"}
    return {keys[document.kind]: document.text}
