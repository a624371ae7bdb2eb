"""Files and processors the calibration tests share."""

from __future__ import annotations

import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
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


def build_tiff(
    levels: NDArray[np.uint16], bits: int, *, photometric: int = 1, order: str = "<", maximum: int | None = None
) -> bytes:
    """A TIFF file of grey levels (height, width) in 12 or 16 bits, of which Pillow writes few kinds.

    photometric: 0 if white is zero. order: of bytes, as of `struct`. maximum: the tag MaxSampleValue.
    """
    height, width = levels.shape
    if bits == 12:
        first, second = levels[:, ::2], levels[:, 1::2]
        packed = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=2)
        data = packed.astype(np.uint8).tobytes()
    else:
        data = levels.astype(f"{order}u2").tobytes()
    tags = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 8, 277: 1, 278: height, 279: len(data)}
    if maximum is not None:
        tags[281] = maximum
    entries = b"".join(struct.pack(f"{order}HHII", tag, 4, 1, value) for tag, value in tags.items())
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8 + len(data))
    return head + data + struct.pack(f"{order}H", len(tags)) + entries + struct.pack(f"{order}I", 0)


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
