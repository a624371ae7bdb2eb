"""Folders laid out as OmniDocBench and olmOCR-bench are published, with a few pages that are drawn here."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from hyocr_core.pages.fonts import find_font, load_font

WIDTH, HEIGHT = 320, 200
TABLE = "<table><tr><td>Item</td><td>Units</td></tr><tr><td>Tea</td><td>12</td></tr></table>"
LATEX = r"\frac{a}{b} = c^{2}"
CHINESE = "发票金额"
LEFT, RIGHT, GOES_ON = "The left column comes first", "The right one comes then", " and goes on here."

Box = tuple[int, int, int, int]
Drawn = tuple[Image.Image, list[dict[str, Any]]]
"""A page, and the elements on it."""


def element(category: str, order: int | None, box: Box, **content: Any) -> dict[str, Any]:
    """An element as the JSON has it."""
    left, top, right, bottom = map(float, box)
    poly = [left, top, right, top, right, bottom, left, bottom]
    return {"category_type": category, "poly": poly, "ignore": False, "order": order, **content}


def _print(image: Image.Image, at: tuple[int, int], text: str, size: int = 16) -> None:
    """Boxes where no font of this machine has the characters."""
    ImageDraw.Draw(image).text(at, text, fill="black", font=load_font(find_font(text), size))


def _table(image: Image.Image) -> list[dict[str, Any]]:
    canvas = ImageDraw.Draw(image)
    for row, cells in enumerate((("Item", "Units"), ("Tea", "12"))):
        for column, text in enumerate(cells):
            left, top = 40 + 100 * column, 60 + 30 * row
            canvas.rectangle((left, top, left + 100, top + 30), outline="black")
            _print(image, (left + 6, top + 5), text)
    _print(image, (40, 20), "Stock")
    _print(image, (150, 180), "page 7", 12)
    return [
        element("table", 2, (40, 60, 240, 120), html=f"<html><body>{TABLE}</body></html>", latex=None),
        element("title", 1, (40, 20, 120, 40), text="Stock"),
        element("page_number", None, (150, 180, 200, 195), text="page 7"),
        element("text_mask", None, (0, 0, 9, 9)) | {"ignore": True},
        element("chart_mask", 4, (0, 0, 9, 9), text="not for reading"),
        element("list_group", 1, (40, 20, 120, 40), text="Stock"),
    ]


def _formula(image: Image.Image) -> list[dict[str, Any]]:
    _print(image, (40, 20), "We have")
    _print(image, (60, 80), "a/b = c^2", 20)
    return [
        element("text_block", 1, (40, 20, 120, 40), text="We have"),
        element("equation_isolated", 2, (60, 80, 160, 104), latex=f"$${LATEX}$$"),
        element("equation_caption", 3, (280, 80, 300, 104), text="(1)"),
    ]


def _two_columns(image: Image.Image) -> list[dict[str, Any]]:
    boxes: tuple[Box, ...] = ((10, 20, 150, 60), (170, 20, 310, 60), (170, 100, 310, 140))
    for box, text in zip(boxes, (LEFT, RIGHT, GOES_ON.strip()), strict=True):
        _print(image, box[:2], text, 10)
    return [
        element("text_block", 2, boxes[1], text=RIGHT, anno_id=2),
        element("text_block", 1, boxes[0], text=LEFT, anno_id=1),
        element("text_block", 3, boxes[2], text=GOES_ON, anno_id=3),
    ]


def _rotated(image: Image.Image) -> list[dict[str, Any]]:
    strip = Image.new("RGB", (160, 24), "white")
    _print(strip, (4, 2), "Turned by a quarter")
    image.paste(strip.rotate(90, expand=True), (40, 20))
    turned = {"text_rotate": "rotate90"}
    return [element("text_block", 1, (40, 20, 64, 180), text="Turned by a quarter", attribute=turned)]


def _chinese(image: Image.Image) -> list[dict[str, Any]]:
    _print(image, (40, 40), CHINESE, 24)
    return [element("text_block", 1, (40, 40, 140, 70), text=CHINESE)]


def _by_hand(image: Image.Image) -> list[dict[str, Any]]:
    """Letters of which each is turned and moved a little, as a hand would."""
    rng = random.Random(7)  # noqa: S311
    for place, letter in enumerate("dear friend"):
        glyph = Image.new("L", (24, 28), 0)
        ImageDraw.Draw(glyph).text((6, 2), letter, fill=255, font=load_font(None, 18))
        image.paste("navy", (30 + 14 * place, 60 + rng.randint(-3, 3)), glyph.rotate(rng.randint(-18, 18)))
    return [element("text_block", 1, (30, 55, 190, 90), text="dear friend")]


PAGES: Mapping[str, Callable[[Image.Image], list[dict[str, Any]]]] = {
    "table.png": _table,
    "formula.png": _formula,
    "two_columns.png": _two_columns,
    "rotated.png": _rotated,
    "chinese.png": _chinese,
    "by_hand.png": _by_hand,
}
TRANSCRIPTS = {
    "table.png": f"Stock\n\n{TABLE}",
    "formula.png": f"We have\n\n$${LATEX}$$",
    "two_columns.png": f"{LEFT}\n\n{RIGHT} and goes on here.",
    "rotated.png": "Turned by a quarter",
    "chinese.png": CHINESE,
    "by_hand.png": "dear friend",
}
"""What each says, as the model would write it."""


def draw(name: str) -> Drawn:
    """One of the six."""
    image = Image.new("RGB", (WIDTH, HEIGHT), "white")
    return image, PAGES[name](image)


def omnidocbench(folder: Path) -> Path:
    """Lay out the six pages as OmniDocBench is."""
    truncated = {"source_anno_id": 2, "target_anno_id": 3, "relation_type": "truncated"}
    caption = {"source_anno_id": 1, "target_anno_id": 2, "relation": "parent_son"}
    extras = {"two_columns.png": {"relation": [truncated, caption]}}
    return lay_out(folder, {name: draw(name) for name in PAGES}, extras)


def lay_out(folder: Path, pages: Mapping[str, Drawn], extras: Mapping[str, dict[str, Any]] | None = None) -> Path:
    """Any pages as OmniDocBench lays them out; those of tables are in a subset of their own, as in version 1.6."""
    (folder / "images").mkdir(parents=True)
    samples: list[dict[str, Any]] = []
    for number, (name, (image, elements)) in enumerate(pages.items()):
        image.save(folder / "images" / name)
        attributes = {"language": "english", "subset": "table_hard" if "table" in name else "v1.5"}
        info = {"page_no": number, "height": image.height, "width": image.width, "image_path": name}
        extra = (extras or {}).get(name, {"relation": []})
        samples.append({"layout_dets": elements, "page_info": info | {"page_attribute": attributes}, "extra": extra})
    (folder / "OmniDocBench.json").write_text(json.dumps(samples, ensure_ascii=False), encoding="utf-8")
    return folder


TESTS: Mapping[str, tuple[dict[str, Any], ...]] = {
    "table_tests": ({"page": "table.png", "type": "table", "cell": "12", "up": "Units", "left_heading": "Tea"},),
    "arxiv_math": ({"page": "formula.png", "type": "math", "math": r"\frac{a}{b}"},),
    "multi_column": ({"page": "two_columns.png", "type": "order", "before": LEFT, "after": RIGHT, "max_diffs": 2},),
    "old_scans": (
        {"page": "by_hand.png", "type": "present", "text": "dear friend", "max_diffs": 1},
        {"page": "rotated.png", "type": "present", "text": "Turned by a quarter"},
        {"page": "chinese.png", "type": "present", "text": CHINESE},
        {"page": "chinese.png", "type": "format", "text": CHINESE, "format": "bold"},
    ),
    "headers_footers": ({"page": "table.png", "type": "absent", "text": "page 7", "last_n": 50},),
}
"""File -> its tests."""


def olmocr_bench(folder: Path) -> Path:
    """Lay out the six pages as olmOCR-bench is."""
    data = folder / "bench_data"
    for file, tests in TESTS.items():
        lines = []
        for number, test in enumerate(tests):
            name = f"{file}/{Path(test['page']).stem}.pdf"
            pdf = data / "pdfs" / name
            pdf.parent.mkdir(parents=True, exist_ok=True)
            draw(test["page"])[0].save(pdf)
            lines.append(json.dumps({**test, "pdf": name, "page": 1, "id": f"{file}_{number}", "checked": "verified"}))
        (data / f"{file}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder
