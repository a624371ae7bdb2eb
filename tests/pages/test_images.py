"""Nothing about an image file is trusted."""

from __future__ import annotations

import struct
import warnings
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFile

from hyocr_core.errors import CalibrationError
from hyocr_core.pages.images import is_nearly_uniform, load_image
from tests.pages.conftest import build_tiff

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


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF"])
def test_an_animation_is_refused(tmp_path: Path, kind: str) -> None:
    frames = [Image.new("RGB", (64, 64), color) for color in ("red", "blue", "green")]
    path = tmp_path / "page"
    frames[0].save(path, kind, save_all=True, append_images=frames[1:])
    with pytest.raises(CalibrationError, match="is an animation of 3 images; save the one that is meant as a page"):
        load_image(path)
    frames[0].save(path, kind, save_all=True)
    assert load_image(path).size == (64, 64)


def test_the_photo_before_its_previews_is_the_page(tmp_path: Path) -> None:
    """Phones write such files (MPO) under the name of a JPEG."""
    photo, preview = noise(), Image.new("RGB", (8, 8), "red")
    photo.save(tmp_path / "photo.jpg", "MPO", save_all=True, append_images=[preview])
    assert load_image(tmp_path / "photo.jpg").size == photo.size


@pytest.mark.parametrize("kind", ["JPEG2000", "AVIF", "PNG", "WEBP", "TIFF", "BMP"])
def test_every_kind_that_loses_nothing_gives_the_plain_page(tmp_path: Path, kind: str) -> None:
    lossless: dict[str, dict[str, Any]] = {"AVIF": {"quality": 100, "subsampling": "4:4:4"}, "WEBP": {"lossless": True}}
    page = Image.radial_gradient("L").convert("RGB")
    page.save(tmp_path / "page", kind, **lossless.get(kind, {}))
    difference = np.asarray(load_image(tmp_path / "page")).astype(int) - np.asarray(page)
    assert np.abs(difference).max() <= (2 if kind == "AVIF" else 0)


PLAIN = np.arange(256, dtype=np.uint16).reshape(8, 32)
"""Every grey level of a page of 8 bits."""


def grey_of(path: Path) -> list[int]:
    image = load_image(path)
    assert image.mode == "RGB"
    return np.asarray(image)[:, :, 0].ravel().tolist()


def scaled(bits: int, *, inverted: bool = False) -> NDArray[np.uint16]:
    """The plain page in more bits, as a scanner has them."""
    levels = np.round(PLAIN / 255 * ((1 << bits) - 1)).astype(np.uint16)
    return (1 << bits) - 1 - levels if inverted else levels


@pytest.mark.parametrize("order", ["<", ">"], ids=["little endian", "big endian"])
@pytest.mark.parametrize("white_is_zero", [False, True])
@pytest.mark.parametrize("bits", [12, 16])
def test_a_grey_tiff_is_the_page_of_8_bits(tmp_path: Path, bits: int, white_is_zero: bool, order: str) -> None:
    photometric = 0 if white_is_zero else 1
    levels = scaled(bits, inverted=white_is_zero)
    (tmp_path / "page.tif").write_bytes(build_tiff(levels, bits, photometric=photometric, order=order))
    assert grey_of(tmp_path / "page.tif") == PLAIN.ravel().tolist()


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_compressed_tiff_of_16_bits_is_too(tmp_path: Path, compression: str) -> None:
    Image.fromarray(scaled(16)).save(tmp_path / "page.tif", compression=compression)
    assert grey_of(tmp_path / "page.tif") == PLAIN.ravel().tolist()


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_fewer_bits_in_16_are_the_page_of_8_bits(tmp_path: Path, kind: str, bits: int) -> None:
    """They used to come out black."""
    Image.fromarray(scaled(bits)).save(tmp_path / "page", kind)
    assert grey_of(tmp_path / "page") == PLAIN.ravel().tolist()


def test_the_highest_level_that_a_tiff_declares_is_white(tmp_path: Path) -> None:
    levels = np.round(PLAIN / 255 * 60000).astype(np.uint16)
    (tmp_path / "page.tif").write_bytes(build_tiff(levels, 16, maximum=60000))
    assert grey_of(tmp_path / "page.tif") == PLAIN.ravel().tolist()


def test_a_blank_page_whose_white_is_zero_stays_white(tmp_path: Path) -> None:
    """The noise of its paper is not taken for ink."""
    levels = np.random.default_rng(0).integers(0, 200, (8, 32), dtype=np.uint16)
    (tmp_path / "page.tif").write_bytes(build_tiff(levels, 16, photometric=0))
    assert min(grey_of(tmp_path / "page.tif")) >= 254


def test_a_page_of_one_colour_is_seen_and_a_line_of_print_is_enough() -> None:
    page = Image.new("RGB", (1240, 1754), (240, 240, 236))
    assert is_nearly_uniform(page)
    assert is_nearly_uniform(Image.effect_noise((600, 800), 3))
    ImageDraw.Draw(page).text((600, 1700), "Page 7 of 9", fill=(120, 120, 120), font_size=24)
    assert not is_nearly_uniform(page)
