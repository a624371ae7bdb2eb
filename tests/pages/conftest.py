"""Files and processors the calibration tests share."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

DEMO = Path(__file__).parents[2] / "examples" / "demo-ocr" / "checkpoint"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the demo checkpoint's small files, free to be damaged."""
    folder = tmp_path / "checkpoint"
    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    return folder


@pytest.fixture
def picture(tmp_path: Path) -> Callable[..., Path]:
    """Save a plain image under tmp_path; folders are made."""

    def save(name: str, size: tuple[int, int] = (64, 32), color: str = "white") -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, color).save(path)
        return path

    return save


def build_pdf(*objects: bytes, trailer: bytes = b"") -> bytes:
    """A PDF file of numbered objects, the first of them the catalog, with a right table of offsets."""
    body, offsets = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, start=1):
        offsets.append(len(body))
        body += b"%d 0 obj\n%b\nendobj\n" % (number, content)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    size = len(objects) + 1
    head = b"xref\n0 %d\n0000000000 65535 f \n%b" % (size, table)
    return (
        body + head + b"trailer\n<< /Size %d /Root 1 0 R %b >>\nstartxref\n%d\n%%%%EOF\n" % (size, trailer, len(body))
    )


@pytest.fixture
def pdf(tmp_path: Path) -> Callable[..., Path]:
    """Save a PDF of blank pages, each with a black square of 36 points in its lower left corner."""

    def save(name: str, *sizes: tuple[int, int], rotate: int = 0, trailer: bytes = b"") -> Path:
        drawing = b"0 0 36 36 re f"
        stream = b"<< /Length %d >>\nstream\n%b\nendstream" % (len(drawing), drawing)
        kids = b" ".join(b"%d 0 R" % (4 + place) for place in range(len(sizes)))
        pages = [
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents 3 0 R /Rotate %d >>" % (*size, rotate)
            for size in sizes
        ]
        tree = b"<< /Type /Pages /Kids [%b] /Count %d >>" % (kids, len(sizes))
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(build_pdf(b"<< /Type /Catalog /Pages 2 0 R >>", tree, stream, *pages, trailer=trailer))
        return path

    return save
