"""What the tags of a TIFF file say: which of its images are pages, and which grey level is white."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_NEW_SUBFILE_TYPE, _BITS, _PHOTOMETRIC, _MAX_VALUE = 254, 258, 262, 281
_NO_PAGE = 1 | 4
"""Bits of NewSubfileType: a smaller version of another image, a mask for another image."""

_WHITE_IS_ZERO = 0


@cache
def read_more_grey() -> None:
    """Let Pillow read what its table lacks of grey levels of 12 and 16 bits: big-endian, or with white as zero."""
    from PIL.TiffImagePlugin import OPEN_INFO

    for prefix, wide in ((b"II", "I;16"), (b"MM", "I;16B")):
        for photometric in (0, 1):
            # Packed bits come with their highest first, whichever way the file orders bytes.
            OPEN_INFO.setdefault((prefix, photometric, (1,), 1, (12,), ()), ("I;16", "I;12"))
            OPEN_INFO.setdefault((prefix, photometric, (1,), 1, (16,), ()), (wide, wide))


def page_frames(image: Image) -> list[int]:
    """The frames of an open file that are pages: no thumbnails and masks of others. The file is at its first again."""
    frames = []
    for frame in range(getattr(image, "n_frames", 1)):
        image.seek(frame)
        if not _tag(image, _NEW_SUBFILE_TYPE, 0) & _NO_PAGE:
            frames.append(frame)
    image.seek(0)
    return frames or [0]


def grey_range(image: Image) -> tuple[int, bool]:
    """Of an image of 16 bits a pixel: the highest level as its tags declare it, and whether that is black.

    Without tags, as in a PNG file, it is that of 16 bits and white.
    """
    highest = (1 << _tag(image, _BITS, 16)) - 1
    return _tag(image, _MAX_VALUE, highest) or highest, _tag(image, _PHOTOMETRIC, 1) == _WHITE_IS_ZERO


def _tag(image: Image, number: int, otherwise: int) -> int:
    value = getattr(image, "tag_v2", {}).get(number, otherwise)
    return int(value[0] if isinstance(value, tuple) else value)
