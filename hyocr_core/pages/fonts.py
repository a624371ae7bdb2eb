"""Fonts that the machine may have, found by name; Pillow's own, which holds ASCII, is always there."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.ImageFont import FreeTypeFont, ImageFont

_WIDE = ("NotoSans-Regular.ttf", "DejaVuSans.ttf", "LiberationSans-Regular.ttf", "FreeSans.ttf", "Arial.ttf")
_CJK = (
    "NotoSansCJK-Regular.ttc", "NotoSansCJKsc-Regular.otf", "NotoSansSC-Regular.otf", "SourceHanSansSC-Regular.otf",
    "wqy-microhei.ttc", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "uming.ttc", "NanumGothic.ttf",
    "Arial Unicode.ttf", "PingFang.ttc",
)  # fmt: skip
_OTHER = (
    "NotoSansArabic-Regular.ttf", "NotoNaskhArabic-Regular.ttf", "NotoSansHebrew-Regular.ttf",
    "NotoSansDevanagari-Regular.ttf", "Lohit-Devanagari.ttf", "NotoSansThai-Regular.ttf", "Garuda.ttf", "Loma.ttf",
    "NotoSansMath-Regular.ttf", "DejaVuMathTeXGyre.ttf",
)  # fmt: skip
_NO_CHARACTER = "\uffff"


def load_font(path: str | None, size: int) -> FreeTypeFont | ImageFont:
    """The font of a file, or Pillow's own for None."""
    from PIL import ImageFont

    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


@cache
def find_font(text: str) -> str | None:
    """The path of the first font of this machine that has every character of `text`; None if none has."""
    for name in (*_WIDE, *_CJK, *_OTHER):
        path = _locate(name)
        if path is not None and _covers(path, text):
            return path
    return None


@cache
def shapes_text() -> bool:
    """Whether Pillow can join and reorder letters, as Arabic, Hebrew, Devanagari and Thai need."""
    from PIL import features

    return bool(features.check("raqm"))


@cache
def _locate(name: str) -> str | None:
    from PIL import ImageFont

    try:
        return str(ImageFont.truetype(name, 10).path)
    except OSError:
        return None


def _covers(path: str, text: str) -> bool:
    """A character that a font lacks is drawn as the box which it draws for any it lacks."""
    from PIL import ImageFont

    font = ImageFont.truetype(path, 24, layout_engine=ImageFont.Layout.BASIC)
    missing = font.getmask(_NO_CHARACTER)
    box = missing.size, bytes(missing)
    return all((mask.size, bytes(mask)) != box for mask in (font.getmask(letter) for letter in set(text) - {" "}))
