"""Read one image, trusting nothing about it."""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from hyocr_core.errors import CalibrationError, one_line
from hyocr_core.outside.regular import IrregularFileError, open_regular
from hyocr_core.pages import image_kinds, tiff

if TYPE_CHECKING:
    from PIL.Image import Image

_ALIKE = 16
"""Grey levels, of 256, that print of the palest kind differs from its paper at least."""

_HEAD = 12
"""Bytes of a file that tell which kind of image it is."""

_USUAL_BITS = (8, 10, 12, 14)
"""Of scanners and cameras, whose levels are often kept in 16 bits as they are."""


def load_image(source: Path | bytes, frame: int | None = None) -> Image:
    """Read a file, or its bytes, as RGB, upright by its EXIF orientation, transparency on white.

    frame: of a TIFF file of several pages, as of `page_frames`.
    Raises CalibrationError, without the file's name, if it cannot be read, is no image, is damaged or cut short, is an
    animation, holds several pages of which none is asked for, or has more pixels than Pillow's limit against
    decompression bombs, or than memory holds.
    """
    with _reading():
        return _decode(source, frame)


def page_frames(path: Path) -> list[int]:
    """Which frames of a TIFF file are pages. Raises CalibrationError as `load_image`."""
    with _reading(), _opened(path) as image:
        return tiff.page_frames(image)


@contextmanager
def _reading() -> Iterator[None]:
    """Whatever Pillow raises becomes a CalibrationError."""
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # such as damaged EXIF data beside a sound image
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = f"{Image.MAX_IMAGE_PIXELS:,}" if Image.MAX_IMAGE_PIXELS else "its limit of"
        raise CalibrationError(f"may be a decompression bomb: more than {limit} pixels; scale it down") from error
    except UnidentifiedImageError as error:
        raise CalibrationError(f"is no {image_kinds.NAMES} image, or of a rare kind") from error
    except IrregularFileError as error:
        raise CalibrationError(f"cannot be read: {error.strerror}") from error
    except FileNotFoundError as error:
        raise CalibrationError("no such file") from error
    except MemoryError as error:
        raise CalibrationError("is too large for this machine's memory; scale it down") from error
    except CalibrationError:
        raise
    except Exception as error:  # what Pillow raises on damaged files is no closed set
        raise CalibrationError(f"cannot be read as an image: {one_line(error)}") from error


def digest_image(image: Image) -> str:
    """SHA-256 of an image's mode, size and pixels: what tells pages apart everywhere in hyocr."""
    return hashlib.sha256(f"{image.mode} {image.width}x{image.height}\n".encode() + image.tobytes()).hexdigest()


def is_nearly_uniform(image: Image) -> bool:
    """Whether all but one in 10,000 pixels have nearly the same grey level, as of a page that was read wrongly."""
    histogram = image.convert("L").histogram()
    most = histogram.index(max(histogram))
    alike = sum(histogram[max(most - _ALIKE, 0) : most + _ALIKE + 1])
    return (sum(histogram) - alike) * 10_000 < sum(histogram)


def png_base64(image: Image) -> str:
    """The image as a PNG file in base64, for another program to decode to the same pixels."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _decode(source: Path | bytes, frame: int | None) -> Image:
    from PIL import ImageOps

    # verify() finds what load() lets pass, but leaves the image unusable.
    with _opened(source) as image:
        image.verify()
    with _opened(source) as image:
        _seek(image, frame)
        image.load()
        grey_range = tiff.grey_range(image)
        return _as_rgb(ImageOps.exif_transpose(image), *grey_range)


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image]:
    from PIL import Image, UnidentifiedImageError

    tiff.read_more_grey()
    with io.BytesIO(source) if isinstance(source, bytes) else open_regular(source) as file:
        head = file.read(_HEAD)
        file.seek(0)
        try:
            image = Image.open(file, formats=image_kinds.formats())
        except UnidentifiedImageError as error:
            needs = image_kinds.lacking_for(head)
            if needs is None:
                raise
            raise CalibrationError(needs) from error
        with image:
            yield image


def _seek(image: Image, frame: int | None) -> None:
    """Go to the one image of a file that is a page."""
    if frame is not None:
        try:
            image.seek(frame)
        except EOFError as error:
            raise CalibrationError("the file has changed since its pages were counted") from error
        return
    if image.format == "TIFF":
        frames = tiff.page_frames(image)
        if len(frames) > 1:
            raise CalibrationError(f"holds {len(frames)} pages; save the one that is meant as a file of its own")
        image.seek(frames[0])
        return
    count = getattr(image, "n_frames", 1)
    # A photo of a phone has previews behind it (MPO).
    if count > 1 and image.format != "MPO":
        raise CalibrationError(f"is an animation of {count} images; save the one that is meant as a page")


def _as_rgb(image: Image, highest: int, highest_is_black: bool) -> Image:
    from PIL import Image

    if image.mode in ("I", "F"):
        raise CalibrationError(f"has pixels of mode {image.mode}, whose black and white are unknown; save it as 8 bits")
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16 bits to 255, which turns a scan white.
        return _from_16_bits(image, highest, highest_is_black).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image.convert("RGBA"))
    return page.convert("RGB")


def _from_16_bits(image: Image, highest: int, highest_is_black: bool) -> Image:
    """Scale grey levels to 8 bits.

    A page is white somewhere: where no level has more bits than scanners do, although the file declares 16, these are
    all there are.
    """
    import numpy as np
    from PIL import Image

    levels = np.asarray(image).astype(np.uint32)
    if highest == 0xFFFF and not highest_is_black:
        bits = max(int(levels.max()), 1).bit_length()
        highest = next(((1 << usual) - 1 for usual in _USUAL_BITS if bits <= usual), highest)
    grey = np.minimum((levels * 255 + highest // 2) // highest, 255).astype(np.uint8)
    return Image.fromarray(255 - grey if highest_is_black else grey)
