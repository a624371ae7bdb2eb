"""The kinds of image files that are pages, and what this machine lacks to read some of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache


@dataclass(frozen=True)
class ImageKind:
    """One of Pillow's decoders. ready: whether it is here; needs: what to do where it is not."""

    format: str
    suffixes: tuple[str, ...]
    ready: Callable[[], bool] = lambda: True
    needs: str = ""


def _jpeg_2000() -> bool:
    from PIL import features

    return bool(features.check("jpg_2000"))


def _avif() -> bool:
    from PIL import features

    return bool(features.check("avif"))


@cache
def _heif() -> bool:
    try:
        from pillow_heif import register_heif_opener  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        return False
    register_heif_opener()
    return True


KINDS = (
    ImageKind("PNG", (".png",)),
    ImageKind("JPEG", (".jpg", ".jpeg", ".jpe", ".jfif")),
    ImageKind("WEBP", (".webp",)),
    ImageKind("BMP", (".bmp",)),
    ImageKind("TIFF", (".tif", ".tiff")),
    ImageKind("GIF", (".gif",)),
    ImageKind("JPEG2000", (".jp2", ".j2k", ".jpf", ".jpx"), _jpeg_2000, "needs a Pillow with JPEG 2000 (openjpeg)"),
    ImageKind("AVIF", (".avif",), _avif, "needs a Pillow with AVIF: pip install 'pillow>=11.3'"),
    ImageKind("HEIF", (".heic", ".heif"), _heif, "needs pillow-heif: pip install 'hyocr-core[heif]'"),
)
"""Only these see a file, whatever its name says: Pillow's others (EPS among them) start programs."""

TIFF_SUFFIXES = (".tif", ".tiff")

NAMES = "PNG, JPEG, WebP, BMP, TIFF, GIF, JPEG 2000, AVIF or HEIC"


def formats() -> tuple[str, ...]:
    """Pillow's names of the kinds that can be read here."""
    return tuple(kind.format for kind in KINDS if kind.ready())


def suffixes() -> frozenset[str]:
    """How the names of files of these kinds end."""
    return frozenset(suffix for kind in KINDS if kind.ready() for suffix in kind.suffixes)


def lacking_for(head: bytes) -> str | None:
    """The same by the first bytes of a file, whatever its name says: phones write HEIC under the name of a JPEG."""
    brands = {b"heic": "HEIF", b"heix": "HEIF", b"mif1": "HEIF", b"msf1": "HEIF", b"avif": "AVIF"}
    name = brands.get(head[8:12]) if head[4:8] == b"ftyp" else None
    return next((kind.needs for kind in KINDS if kind.format == name and not kind.ready()), None)


def lacking(suffix: str) -> str | None:
    """What it needs to read files of this name; None for those that can be read, and for what are no images."""
    return next((kind.needs for kind in KINDS if suffix in kind.suffixes and not kind.ready()), None)
