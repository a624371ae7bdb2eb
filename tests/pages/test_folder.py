"""Folders as people have them: files of several pages, their transcripts, and what is left out by name."""

from __future__ import annotations

import os
import sys
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hyocr_core.errors import CalibrationError
from hyocr_core.pages import image_kinds
from hyocr_core.pages.folder import read_folder
from hyocr_core.pages.sources import draw_pages, find_pages, open_source

Picture = Callable[..., Path]
COLORS = ("red", "green", "blue")


@pytest.fixture
def without_heif(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As where pillow-heif is not installed."""
    image_kinds._heif.cache_clear()
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    yield
    image_kinds._heif.cache_clear()


def save_tiff(path: Path, *colors: str, thumbnails: bool = False) -> Path:
    """A TIFF file of a page for each colour, with a thumbnail behind each if asked for."""
    frames = []
    for color in colors:
        frames.append(Image.new("RGB", (64, 96), color))
        if thumbnails:
            frames.append(Image.new("RGB", (16, 24), color))
            frames[-1].encoderinfo = {"tiffinfo": {254: 1}}
    frames[0].save(path, save_all=True, append_images=frames[1:])
    return path


def test_every_page_of_a_tiff_file_is_one(tmp_path: Path) -> None:
    save_tiff(tmp_path / "fax.tif", *COLORS)
    save_tiff(tmp_path / "one.tiff", "white")
    records = open_source(str(tmp_path))
    assert [record.name for record in records] == ["fax.tif:1", "fax.tif:2", "fax.tif:3", "one.tiff"]
    for record, color in zip(records, (*COLORS, "white"), strict=True):
        plain = Image.new("RGB", (64, 96), color)
        assert np.array_equal(np.asarray(record.open_image()), np.asarray(plain))


def test_thumbnails_in_a_tiff_file_are_no_pages(tmp_path: Path) -> None:
    save_tiff(tmp_path / "fax.tif", "red", "blue", thumbnails=True)
    records = open_source(str(tmp_path))
    assert [record.name for record in records] == ["fax.tif:1", "fax.tif:2"]
    assert [record.open_image().size for record in records] == [(64, 96)] * 2


def test_a_tiff_file_is_a_source(tmp_path: Path) -> None:
    fax = save_tiff(tmp_path / "fax.tif", *COLORS)
    assert [record.name for record in open_source(str(fax))] == ["fax.tif:1", "fax.tif:2", "fax.tif:3"]
    assert [record.name for record in open_source(str(save_tiff(tmp_path / "one.tif", "red")))] == ["one.tif"]


def test_a_row_that_names_a_file_of_several_pages_is_refused(tmp_path: Path) -> None:
    save_tiff(tmp_path / "fax.tif", *COLORS)
    (tmp_path / "rows.jsonl").write_text('{"img_path": "fax.tif"}')
    (record,) = open_source(str(tmp_path / "rows.jsonl"))
    with pytest.raises(CalibrationError, match=r"fax\.tif: holds 3 pages; save the one that is meant"):
        record.open_image()


def test_a_tiff_file_that_changed_or_is_damaged_says_so_when_it_is_used(tmp_path: Path) -> None:
    path = save_tiff(tmp_path / "fax.tif", *COLORS)
    last = open_source(str(tmp_path))[2]
    save_tiff(path, "red", "blue")
    with pytest.raises(CalibrationError, match="has changed since its pages were counted"):
        last.open_image()
    path.write_bytes(b"II*\0no file")
    (record,) = open_source(str(tmp_path))
    with pytest.raises(CalibrationError, match=r"cannot be read|is no PNG"):
        record.open_image()


@pytest.mark.parametrize(
    ("text", "pages"),
    [
        ("one\ftwo\fthree", ["one", "two", "three"]),
        ("one\n\ftwo\n\fthree\n\f", ["one", "two", "three"]),
        ("one\r\n\f\r\ntwo\r\nlines\r\n\f", ["one", "two\nlines", ""]),
        ("one\n\f\ntwo\n\n\f\n  three \n", ["one", "two\n", "  three "]),
    ],
)
@pytest.mark.parametrize("name", ["batch.tif", "batch.pdf"])
def test_a_transcript_for_each_page_is_between_form_feeds(
    tmp_path: Path, pdf: Callable[..., Path], name: str, text: str, pages: list[str]
) -> None:
    if name == "batch.pdf":
        pytest.importorskip("pypdfium2")
        path = pdf(name, *[(144, 144)] * 3)
    else:
        path = save_tiff(tmp_path / name, *COLORS)
    path.with_suffix(".txt").write_bytes(text.encode())
    for source in (tmp_path, path):
        found = find_pages(str(source))
        assert [record.answer for record in found.records] == pages
        assert found.files == {}


def test_a_wrong_number_of_transcripts_is_refused(tmp_path: Path) -> None:
    save_tiff(tmp_path / "batch.tif", *COLORS)
    (tmp_path / "batch.txt").write_text("one\ftwo\n")
    with pytest.raises(CalibrationError, match=r"batch\.txt: holds 2 transcripts, .* and batch\.tif 3 pages"):
        open_source(str(tmp_path))


def test_the_form_feed_that_ocr_programs_write_behind_a_page_is_no_text(tmp_path: Path, picture: Picture) -> None:
    picture("a.png")
    (tmp_path / "a.txt").write_text("text\n\f")
    assert open_source(str(tmp_path))[0].answer == "text"


@pytest.mark.parametrize(("image", "text"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_a_transcript_is_found_however_unicode_spells_its_name(
    tmp_path: Path, picture: Picture, image: str, text: str
) -> None:
    picture(unicodedata.normalize(image, "Größe é.png"))  # type: ignore[arg-type]
    (tmp_path / unicodedata.normalize(text, "Größe é.txt")).write_text("text")  # type: ignore[arg-type]
    found = read_folder(tmp_path)
    assert [record.answer for record in found.records] == ["text"]
    assert found.files == {}


def test_a_transcript_in_capitals_is_one(tmp_path: Path, picture: Picture) -> None:
    picture("SCAN.PNG")
    (tmp_path / "SCAN.TXT").write_text("text")
    assert [record.answer for record in open_source(str(tmp_path))] == ["text"]


@pytest.mark.parametrize("suffix", [".jfif", ".jpe", ".jp2", ".avif", ".JPG"])
def test_images_of_rarer_names_are_pages(tmp_path: Path, suffix: str) -> None:
    kind = {".jp2": "JPEG2000", ".avif": "AVIF"}.get(suffix, "JPEG")
    Image.new("RGB", (64, 64), "red").save(tmp_path / f"page{suffix}", kind)
    (record,) = open_source(str(tmp_path))
    red, green, blue = np.asarray(record.open_image())[32, 32].tolist()
    assert red > 250
    assert max(green, blue) < 5


@pytest.mark.usefixtures("without_heif")
def test_files_that_are_no_pages_are_named(tmp_path: Path, picture: Picture) -> None:
    picture("a.png")
    for name in ("a.txt", "b.txt", "c.heic", "d.HEIF", "e.docx", "rows.jsonl", ".hidden", "Thumbs.db", "sub/f.heic"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"text")
    said: list[str] = []
    found = draw_pages(str(tmp_path), None, None, None, 0, keep_duplicates=True, say=said.append)
    needs = "needs pillow-heif: pip install 'hyocr-core[heif]'"
    assert found.files == {
        "b.txt": "no page of that name lies beside it",
        "c.heic": needs,
        "d.HEIF": needs,
        "e.docx": "no image or PDF file by its name",
        "rows.jsonl": "rows are read where the file itself is given",
        "sub/f.heic": needs,
    }
    assert said == [
        "left out 1 file, b.txt: no page of that name lies beside it",
        f"left out 3 files, c.heic, d.HEIF, sub/f.heic: {needs}",
        "left out 1 file, e.docx: no image or PDF file by its name",
        "left out 1 file, rows.jsonl: rows are read where the file itself is given",
    ]
    assert find_pages(f"folder:{tmp_path}").files == found.files


def test_files_of_two_folders_and_of_any_name_are_told_apart(tmp_path: Path, picture: Picture) -> None:
    for folder in ("a", "b"):
        picture(f"{folder}/page.png")
        (tmp_path / folder / "notes.docx").write_bytes(b"")
    (tmp_path / "a" / os.fsdecode(b"\xff\x1b.docx")).write_bytes(b"")
    files = find_pages(f"{tmp_path / 'a'},{tmp_path / 'b'}").files
    assert len(files) == 3
    assert {"notes.docx", "notes.docx (source 2)"} <= files.keys()
    assert "\x1b" not in "".join(files).encode().decode()


@pytest.mark.usefixtures("without_heif")
def test_a_folder_of_what_cannot_be_read_says_what_it_needs(tmp_path: Path) -> None:
    for place in range(5):
        (tmp_path / f"{place}.heic").write_bytes(b"")
    with pytest.raises(CalibrationError, match=r"no image .*; left out 5 files, 0\.heic, 1\.heic, 2\.heic and 2 more"):
        open_source(str(tmp_path))
    with pytest.raises(CalibrationError, match=r"0\.heic: needs pillow-heif"):
        open_source(str(tmp_path / "0.heic"))


@pytest.mark.usefixtures("without_heif")
def test_a_photo_of_a_phone_under_the_name_of_a_jpeg_says_what_it_needs(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100))
    (record,) = open_source(str(tmp_path))
    with pytest.raises(CalibrationError, match=r"^needs pillow-heif: pip install 'hyocr-core\[heif\]'$"):
        record.open_image()


@pytest.mark.parametrize("name", ["page.heic", "page.heif", "page.jpg"])
def test_photos_of_phones_are_read_where_pillow_heif_is(tmp_path: Path, name: str) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    page = Image.radial_gradient("L").convert("RGB")
    pillow_heif.from_pillow(page).save(tmp_path / name, quality=-1, chroma=444)
    (record,) = open_source(str(tmp_path))
    difference = np.asarray(record.open_image()).astype(int) - np.asarray(page)
    assert np.abs(difference).max() <= 2


@pytest.mark.usefixtures("without_heif")
def test_without_pillow_heif_its_files_are_not_read() -> None:
    assert ".heic" not in image_kinds.suffixes()
    assert "HEIF" not in image_kinds.formats()
    assert image_kinds.lacking(".png") is None
