"""Nothing about an image file is trusted."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from hyocr_core.errors import CalibrationError
from hyocr_core.pages.images import load_image

FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "png": ("PNG", {}),
    "jpg": ("JPEG", {}),
    "progressive.jpg": ("JPEG", {"progressive": True}),
    "webp": ("WEBP", {}),
    "bmp": ("BMP", {}),
    "tif": ("TIFF", {}),
    "lzw.tiff": ("TIFF", {"compression": "tiff_lzw"}),
    "gif": ("GIF", {}),
}


def noise(size: tuple[int, int] = (96, 80)) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.fixture(params=FORMATS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    kind, options = FORMATS[request.param]
    path = tmp_path / f"page.{request.param}"
    noise().save(path, kind, **options)
    return path


def png_of(width: int, height: int) -> bytes:
    """A well-formed PNG whose header claims any size, with almost no data behind it."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + body + chunk(b"IEND", b"")


def test_every_format_is_read_as_rgb(saved: Path) -> None:
    image = load_image(saved)
    assert (image.mode, image.size) == ("RGB", (96, 80))


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_a_truncated_image_is_refused_in_every_format(saved: Path, share: float) -> None:
    data = saved.read_bytes()
    saved.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(CalibrationError):
        load_image(saved)
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_a_flipped_bit_in_a_png_is_found(tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    noise().save(path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CalibrationError, match="cannot be read as an image"):
        load_image(path)


@pytest.mark.parametrize("side", [10_000, 20_000], ids=["pillow warns", "pillow raises"])
def test_a_decompression_bomb_is_refused_before_it_is_decoded(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png_of(side, side))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with pytest.raises(CalibrationError, match="decompression bomb: more than 89,478,485 pixels"):
            load_image(path)


def test_an_image_that_memory_does_not_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_image: Any) -> None:
        raise MemoryError

    path = tmp_path / "page.png"
    noise().save(path)
    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(CalibrationError, match="is too large for this machine's memory; scale it down"):
        load_image(path)


@pytest.mark.parametrize("cut", [12, 8], ids=["no end", "half an end"])
def test_a_png_that_lacks_only_its_end_is_refused(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "page.png"
    noise().save(path)
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(CalibrationError, match="cannot be read as an image"):
        load_image(path)


@pytest.mark.parametrize("kind", ["PPM", "EPS", "ICO"])
def test_other_formats_are_not_even_decoded(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "page.png"
    noise().save(path, kind)
    with pytest.raises(CalibrationError, match="is no PNG, JPEG"):
        load_image(path)


@pytest.mark.parametrize("content", [b"", b"no image at all"])
def test_what_is_no_image_is_refused_whatever_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "page.png"
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match="is no PNG, JPEG"):
        load_image(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="no such file"):
        load_image(tmp_path / "gone.png")
    with pytest.raises(CalibrationError, match="cannot be read"):
        load_image(tmp_path)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    image = Image.new("RGB", (60, 20), "black")
    image.paste("white", (0, 0, 30, 20))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rotate by 90 degrees clockwise to show
    image.save(tmp_path / "turned.png", exif=exif)
    upright = np.asarray(load_image(tmp_path / "turned.png"))
    assert upright.shape == (60, 20, 3)
    assert upright[:30].min() == 255
    assert upright[30:].max() == 0


def test_transparency_becomes_white_paper(tmp_path: Path) -> None:
    image = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    image.paste((10, 20, 30, 255), (0, 0, 32, 8))
    image.save(tmp_path / "page.png")
    pixels = np.asarray(load_image(tmp_path / "page.png"))
    assert pixels[0, 0].tolist() == [10, 20, 30]
    assert pixels[20, 20].tolist() == [255, 255, 255]


def test_sixteen_bits_keep_their_shades(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0x4000, 0x80FF, 0xFFFF]], dtype=np.uint16)).save(tmp_path / "scan.png")
    assert np.asarray(load_image(tmp_path / "scan.png"))[0, :, 0].tolist() == [0, 0x40, 0x80, 0xFF]


def test_float_pixels_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((4, 4), dtype=np.float32)).save(tmp_path / "map.tif")
    with pytest.raises(CalibrationError, match="mode F"):
        load_image(tmp_path / "map.tif")


def test_the_first_frame_of_an_animation_is_the_page(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    frames[0].save(tmp_path / "page.gif", save_all=True, append_images=frames[1:])
    assert load_image(tmp_path / "page.gif").getpixel((4, 4)) == (255, 0, 0)
