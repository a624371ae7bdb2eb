"""Read one image, trusting nothing about it."""

from __future__ import annotations

import base64
import hashlib
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from hyocr_core.errors import CalibrationError, one_line
from hyocr_core.outside.regular import IrregularFileError, open_regular

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff", ".gif"})

# Only these decoders see a file, whatever its name says: Pillow's others (EPS among them) start programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF")


def load_image(source: Path | bytes) -> Image:
    """Read a file, or its bytes, as RGB, upright by its EXIF orientation, transparency on white; the first frame.

    Raises CalibrationError, without the file's name, if it cannot be read, is no image, is damaged or cut short, or
    has more pixels than Pillow's limit against decompression bombs, or than memory holds.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # such as damaged EXIF data beside a sound image
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            return _decode(source)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = f"{Image.MAX_IMAGE_PIXELS:,}" if Image.MAX_IMAGE_PIXELS else "its limit of"
        raise CalibrationError(f"may be a decompression bomb: more than {limit} pixels; scale it down") from error
    except UnidentifiedImageError as error:
        raise CalibrationError("is no PNG, JPEG, WebP, BMP, TIFF or GIF image") from error
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


def png_base64(image: Image) -> str:
    """The image as a PNG file in base64, for another program to decode to the same pixels."""
    file = io.BytesIO()
    image.save(file, "PNG", compress_level=1)
    return base64.b64encode(file.getvalue()).decode("ascii")


def _decode(source: Path | bytes) -> Image:
    from PIL import Image, ImageOps

    # verify() finds what load() lets pass, but leaves the image unusable.
    with _file(source) as file, Image.open(file, formats=_FORMATS) as image:
        image.verify()
    with _file(source) as file, Image.open(file, formats=_FORMATS) as image:
        image.load()
        return _as_rgb(ImageOps.exif_transpose(image))


def _file(source: Path | bytes) -> BinaryIO:
    return io.BytesIO(source) if isinstance(source, bytes) else open_regular(source)


def _as_rgb(image: Image) -> Image:
    from PIL import Image

    if image.mode in ("I", "F"):
        raise CalibrationError(f"has pixels of mode {image.mode}, whose black and white are unknown; save it as 8 bits")
    if image.mode.startswith("I;16"):
        # Pillow's own conversion clips 16 bits to 255, which turns a scan white.
        return _from_16_bits(image).convert("RGB")
    if not image.has_transparency_data:
        return image.convert("RGB")
    page = Image.new("RGBA", image.size, "white")
    page.alpha_composite(image.convert("RGBA"))
    return page.convert("RGB")


def _from_16_bits(image: Image) -> Image:
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
