"""PDF files: a record for each page, rendered when it is used."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BadInputError, CalibrationError
from hyocr_core.pages.sources import open_source

MakePdf = Callable[..., Path]
A4 = (595, 842)
LOCKED = b"/ID [<00><00>] /Encrypt << /Filter /Standard /V 2 /R 3 /Length 128 /P -44 /O <%b> /U <%b> >>" % (
    b"5a" * 32,
    b"a5" * 32,
)


def names(found: list[Record]) -> list[str]:
    return [record.name for record in found]


def test_every_page_is_a_record_without_transcript(pdf: MakePdf) -> None:
    found = open_source(str(pdf("scan.pdf", A4, (72, 144), (14400, 7200))))
    assert names(found) == ["scan.pdf:1", "scan.pdf:2", "scan.pdf:3"]
    assert all(record.answer is None and record.question is None for record in found)
    sizes = [record.open_image().size for record in found]
    assert sizes == [(1240, 1755), (150, 300), (2048, 1024)]


def test_a_page_is_drawn_upright_on_white(pdf: MakePdf) -> None:
    """36 points are 75 pixels at 150 dots per inch, and the origin of a PDF page is its lower left corner."""
    (record,) = open_source(str(pdf("scan.PDF", (72, 144))))
    image = record.open_image()
    pixels = np.asarray(image)
    assert image.mode == "RGB"
    assert pixels[226:, :74].max() == 0
    assert pixels[:224].min() == 255
    assert pixels[:, 76:].min() == 255


def test_a_rotated_page_is_turned(pdf: MakePdf) -> None:
    (record,) = open_source(str(pdf("scan.pdf", (72, 144), rotate=90)))
    pixels = np.asarray(record.open_image())
    assert pixels.shape == (150, 300, 3)
    assert pixels[:74, :74].max() == 0


def test_pdf_files_and_images_of_a_folder_are_sorted_together(
    tmp_path: Path, pdf: MakePdf, picture: Callable[..., Path]
) -> None:
    picture("pages/b.png")
    pdf("pages/a.pdf", A4, A4)
    pdf("pages/sub/c.pdf", A4)
    found = open_source(str(tmp_path / "pages"))
    assert names(found) == ["a.pdf:1", "a.pdf:2", "b.png", "sub/c.pdf:1"]
    assert found[-1].open_image().width == 1240


def test_an_encrypted_file_is_named(tmp_path: Path, pdf: MakePdf) -> None:
    path = pdf("pages/secret.pdf", A4, trailer=LOCKED)
    for source in (path, tmp_path / "pages"):
        with pytest.raises(
            CalibrationError, match=r"secret\.pdf: is encrypted; save a copy that opens without"
        ) as caught:
            open_source(str(source))
        assert caught.value.exit_code == 2


@pytest.mark.parametrize("content", [b"", b"no PDF at all", b"%PDF-1.7\n" + bytes(500)])
def test_a_broken_file_is_named(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "broken.pdf"
    path.write_bytes(content)
    for source in (path, tmp_path):
        with pytest.raises(CalibrationError, match=r"broken\.pdf: is no PDF file, or a damaged one: "):
            open_source(str(source))


def test_a_file_cut_in_half_is_refused_or_loses_pages_that_then_fail(pdf: MakePdf) -> None:
    path = pdf("cut.pdf", A4, A4)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 3])
    with pytest.raises(CalibrationError, match=r"cut\.pdf: "):
        open_source(str(path))


def test_a_file_without_pages_is_refused(pdf: MakePdf) -> None:
    with pytest.raises(CalibrationError, match=r"empty\.pdf: "):
        open_source(str(pdf("empty.pdf")))


def test_a_missing_page_shows_when_it_is_opened(pdf: MakePdf) -> None:
    path = pdf("scan.pdf", A4, A4)
    path.write_bytes(path.read_bytes().replace(b"[4 0 R 5 0 R]", b"[4 0 R 9 0 R]"))
    whole, missing = open_source(str(path))
    assert whole.open_image().size == (1240, 1755)
    with pytest.raises(CalibrationError, match="damaged"):
        missing.open_image()


def test_a_file_that_shrank_is_found_out(pdf: MakePdf) -> None:
    second = open_source(str(pdf("scan.pdf", A4, A4)))[1]
    pdf("scan.pdf", A4)
    with pytest.raises(CalibrationError, match="has no page 2, or no longer"):
        second.open_image()


def test_without_the_library_the_extra_is_named(pdf: MakePdf, monkeypatch: pytest.MonkeyPatch) -> None:
    path = pdf("scan.pdf", A4)
    monkeypatch.setitem(sys.modules, "pypdfium2", None)
    with pytest.raises(BadInputError, match=r"pip install 'hyocr-core\[pdf\]'"):
        open_source(str(path))
