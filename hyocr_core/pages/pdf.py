"""The source `pdf`: pages of a PDF file, rendered by PDFium when they are needed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hyocr_core.contract.page_source import Record, Source
from hyocr_core.errors import BadInputError, CalibrationError
from hyocr_core.outside.home import expanded
from hyocr_core.outside.regular import check_regular
from hyocr_core.pages.transcripts import with_transcripts

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIX = ".pdf"

DPI = 150
"""Small print is legible, and an A4 page is 1240 x 1755 pixels, which the model sees as 2200 tokens."""

LONGEST_SIDE = 2048
"""Pixels; a page that would be larger, such as a poster, is rendered at fewer dots per inch."""


class PdfSource(Source):
    """Every page of a PDF file, rendered; `scan.txt` beside `scan.pdf` holds their transcripts."""

    api_version: ClassVar[int] = 1

    def records(self) -> list[Record]:
        """As `read_pdf`, with transcripts."""
        path = expanded(self.place)
        return with_transcripts(read_pdf(path, path.name), path)


def read_pdf(path: Path, name: str) -> list[Record]:
    """List the pages of a PDF file as records `name:1`, `name:2`, ... without transcripts.

    Raises CalibrationError naming the file if it is encrypted, damaged or empty; BadInputError without pypdfium2.
    """
    try:
        with _open(path) as document:
            pages = len(document)
    except CalibrationError as error:
        raise CalibrationError(f"{path}: {error}") from error
    if not pages:
        raise CalibrationError(f"{path}: holds no page")
    return [Record(f"{name}:{number}", None, None, partial(_render, path, number)) for number in range(1, pages + 1)]


def page_of_pdf(path: Path, number: int) -> Callable[[], Image]:
    """What renders one page of a file, which is opened then."""
    return partial(_render, path, number)


@contextmanager
def _open(path: Path) -> Iterator[Any]:
    """The document; what PDFium says against it, then or inside, becomes a CalibrationError."""
    try:
        import pypdfium2  # type: ignore[import-untyped]
    except ImportError as error:
        raise BadInputError(f"{path}: reading PDF files needs pypdfium2: pip install 'hyocr-core[pdf]'") from error
    try:
        check_regular(path)
        with pypdfium2.PdfDocument(path) as document:
            document.init_forms()
            yield document
    except pypdfium2.PdfiumError as error:
        raise CalibrationError(_reason(error)) from error
    except OSError as error:
        raise CalibrationError(f"cannot be read: {error.strerror}") from error


def _reason(error: Exception) -> str:
    text = str(error)
    if "password" in text.lower() or "security" in text.lower():
        return "is encrypted; save a copy that opens without a password"
    return f"is no PDF file, or a damaged one: {text}"


def _render(path: Path, number: int) -> Image:
    with _open(path) as document:
        if number > len(document):
            raise CalibrationError(f"has no page {number}, or no longer")
        page = document[number - 1]
        width, height = page.get_size()
        scale = min(DPI / 72, LONGEST_SIDE / max(width, height))
        image: Image = page.render(scale=scale).to_pil()
        return image.convert("RGB")
