"""Folders, synthetic pages, unknown sources, and the seeded choice among records."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.prompts import DEFAULT_PROMPT
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import draw_pages, open_source, select, source_name
from hyocr_core.testing.layout import build_published_processor

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

Picture = Callable[..., Path]


def records(count: int) -> list[Record]:
    return open_source(f"synthetic:{count}")


def names(found: list[Record]) -> list[str]:
    return [record.name for record in found]


def test_a_folder_is_listed_in_depth_and_sorted(tmp_path: Path, picture: Picture) -> None:
    for name in ("b.png", "a.JPG", "sub/c.webp", "sub/deeper/d.tiff", "Z.gif", ".hidden.png", ".cache/e.png"):
        picture(name)
    (tmp_path / "notes.md").write_text("no image")
    assert names(open_source(str(tmp_path))) == ["Z.gif", "a.JPG", "b.png", "sub/c.webp", "sub/deeper/d.tiff"]


def test_a_transcript_lies_beside_its_image(tmp_path: Path, picture: Picture) -> None:
    picture("a.png", color="red")
    picture("b.png")
    (tmp_path / "a.txt").write_bytes("\ufeffGröße 5 €\r\n  zweite Zeile \n\n".encode())
    first, second = open_source(str(tmp_path))
    assert first.answer == "Größe 5 €\n  zweite Zeile \n"
    assert second.answer is None
    assert first.question is None
    assert first.open_image().getpixel((0, 0)) == (255, 0, 0)


def test_a_transcript_that_is_not_utf8_is_named(tmp_path: Path, picture: Picture) -> None:
    picture("a.png")
    (tmp_path / "a.txt").write_bytes(b"ab\xff")
    with pytest.raises(CalibrationError, match=r"a\.txt: the transcript is not UTF-8 \(byte 2\)"):
        open_source(str(tmp_path))


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    with pytest.raises(CalibrationError, match=r"no image in this folder; looked for .*\.png"):
        open_source(str(tmp_path))


@pytest.mark.parametrize("spec", ["", "no-such-place", "synthetc", "a.jsonl,", "pages,synthetic:1"])
def test_an_unknown_source_lists_the_valid_forms(spec: str) -> None:
    with pytest.raises(CalibrationError, match=r"no such file or folder; give a folder of images, a JSONL, PDF or"):
        open_source(spec)


def test_a_single_image_is_a_page_with_its_transcript(picture: Picture) -> None:
    path = picture("a.PNG")
    (record,) = open_source(str(path))
    assert (record.name, record.answer) == ("a.PNG", None)
    path.with_suffix(".txt").write_text("text\n")
    (record,) = open_source(str(path))
    assert record.answer == "text"


@pytest.mark.parametrize("count", ["", "0", "-3", "many", "1.5", "10001", "9" * 5000, "²"])
def test_a_wrong_number_of_synthetic_pages_is_refused(count: str) -> None:
    with pytest.raises(CalibrationError, match="a number of pages from 1 to 10000"):
        open_source(f"synthetic:{count}")


def test_synthetic_is_a_source() -> None:
    assert names(records(3)) == ["synthetic:0", "synthetic:1", "synthetic:2"]
    assert len(open_source("synthetic")) == 512


def test_sources_are_joined_by_commas(tmp_path: Path, picture: Picture) -> None:
    picture("pages/a.png")
    picture("b.png")
    (tmp_path / "rows.jsonl").write_text('{"img_path": "b.png"}\n{"img_path": "b.png"}\n')
    found = open_source(f"{tmp_path / 'rows.jsonl'},synthetic:2,{tmp_path / 'pages'}")
    assert names(found) == ["rows.jsonl:1", "rows.jsonl:2", "synthetic:0", "synthetic:1", "a.png"]


def test_a_comma_in_a_path_that_exists_is_part_of_it(tmp_path: Path, picture: Picture) -> None:
    picture("a,b/one.png")
    picture("a/two.png")
    picture("c, d,e/three.png")
    both, alone, last = (str(tmp_path / name) for name in ("a,b", "a", "c, d,e"))
    assert names(open_source(both)) == ["one.png"]
    assert names(open_source(f"{alone},{both}")) == ["two.png", "one.png"]
    assert names(open_source(f"{both},synthetic:1,{last}")) == ["one.png", "synthetic:0", "three.png"]


def test_pages_of_one_name_are_told_apart(tmp_path: Path, picture: Picture) -> None:
    picture("a/page.png", color="red")
    picture("b/page.png", color="blue")
    first, second = open_source(f"{tmp_path / 'a'},{tmp_path / 'b'}")
    assert (first.name, second.name) == ("page.png", "page.png (source 2)")
    assert second.open_image().getpixel((0, 0)) == (0, 0, 255)


def test_an_error_names_its_part(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match=r"^synthetic:many: synthetic:N takes"):
        open_source("synthetic:1,synthetic:many")


def test_the_draw_is_over_the_whole_mixture(tmp_path: Path, picture: Picture) -> None:
    for place in range(30):
        picture(f"pages/{place:02}.png", size=(16 + place, 16))
    found = select(open_source(f"synthetic:30,{tmp_path / 'pages'}"), 20, seed=5)
    rendered = sum(name.startswith("synthetic") for name in names(found))
    assert 0 < rendered < 20


def test_a_report_names_sources_without_local_paths(tmp_path: Path, picture: Picture) -> None:
    picture("scans/a.png")
    source = f"{tmp_path / 'scans'}/,synthetic:3,{tmp_path / 'rows.jsonl'}"
    assert source_name(source) == "scans,synthetic:3,rows.jsonl"


def test_a_path_may_be_given_a_scheme_too(
    tmp_path: Path, picture: Callable[..., Path], pdf: Callable[..., Path]
) -> None:
    picture("pages/a.png")
    pdf("scan.dat", (100, 100))
    (tmp_path / "rows").write_text('{"img_path": "pages/a.png"}\n')
    given = f"folder:{tmp_path / 'pages'}/,jsonl:{tmp_path / 'rows'},pdf:{tmp_path / 'scan.dat'}"
    assert [record.name for record in open_source(given)] == ["a.png", "rows:1", "scan.dat:1"]
    assert source_name(given) == "folder:pages,jsonl:rows,pdf:scan.dat"
    for source, problem in (
        ("folder:/no/such", r"^folder:/no/such: /no/such: cannot be read: "),
        ("pdf:/no/such", r"^pdf:/no/such: /no/such: "),
        ("jsonl:/no/such", r"^jsonl:/no/such: /no/such: cannot be read: "),
        ("folder:/x?depth=2", r"^folder:/x\?depth=2: after the \?: depth: unknown key; valid keys: none$"),
    ):
        with pytest.raises(CalibrationError, match=problem):
            open_source(source)


def test_the_choice_is_seeded_without_repeats_and_in_order() -> None:
    found = records(50)
    chosen = names(select(found, 8, seed=1))
    assert chosen == names(select(found, 8, seed=1))
    assert chosen != names(select(found, 8, seed=2))
    assert len(set(chosen)) == 8
    assert chosen == sorted(chosen, key=names(found).index)


def test_fewer_records_than_asked_are_all_taken() -> None:
    found = records(5)
    assert select(found, 5, seed=0) == found
    assert select(found, 99, seed=0) == found


def test_no_samples_asked_for_is_refused() -> None:
    with pytest.raises(CalibrationError, match="at least 1"):
        select(records(2), 0, seed=0)


def test_sources_import_no_heavy_library() -> None:
    code = (
        "import sys; from hyocr_core.pages import sources, prompts, synthetic, jsonl, images;"
        "print(sorted({'torch', 'transformers', 'PIL', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


THIRD_PARTY = """
from PIL import Image
from hyocr_core import Record, Source

class Grey(Source):
    api_version = 1

    def records(self):
        yield Record("grey", None, "grey", lambda: Image.new("RGB", (64, 32), "grey"))
"""
_PRINTABLE = [*range(33, 127), *range(161, 173), *range(174, 256)]
BYTES = [*_PRINTABLE, *(byte for byte in range(256) if byte not in _PRINTABLE)]
"""The bytes in the order of the ids that a byte-level vocabulary without merges gives them."""


def spelled(system: str, question: str, answer: str | None, cells: tuple[int, int]) -> list[int]:
    """What the official clients send, id by id, and what the model answers. cells: rows and columns of the page."""
    text = {part: [BYTES.index(byte) for byte in part.encode()] for part in (system, question, answer or "")}
    picture = [120118, *[120120] * (cells[0] * (cells[1] + 1) + 2), 120119]
    prompt = [120000, *text[system], 120021, *picture, *text[question], 120006]
    return prompt if answer is None else [*prompt, *text[answer], 120007]


@pytest.mark.parametrize(("task", "question"), [(None, DEFAULT_PROMPT), ("table", "把图中的表格解析为HTML。")])
@pytest.mark.parametrize("system", [None, "Be exact.\n"])
def test_every_source_sends_what_the_official_clients_send(
    tmp_path: Path,
    picture: Picture,
    pdf: Callable[..., Path],
    plugins: PluginFolder,
    task: str | None,
    question: str,
    system: str | None,
) -> None:
    datasets = pytest.importorskip("datasets")
    image = picture("pages/a.png", (96, 64))
    image.with_suffix(".txt").write_text("abc\n")
    chat = [{"role": "user", "content": [{"type": "image", "image": "pages/a.png"}, {"type": "text", "text": ""}]}]
    rows = [{"img_path": "pages/a.png", "answer": "abc"}, {"messages": chat}]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = datasets.Dataset.from_dict({"image": [str(image)], "text": ["abc"]})
    table.cast_column("image", datasets.Image()).save_to_disk(tmp_path / "saved")
    (plugins.folder / "hostile_grey.py").write_text(THIRD_PARTY)
    plugins.metadata("hyocr-source-grey", "0.0.1", {"grey": "hostile_grey:Grey"}, "a source", group="hyocr.sources")
    sources = [tmp_path / "pages", tmp_path / "rows.jsonl", pdf("scan.pdf", (144, 72)), f"hf:{tmp_path / 'saved'}"]
    sources += ["synthetic:2", "grey:"]
    said: list[str] = []
    found = draw_pages(",".join(map(str, sources)), task, system, None, 0, keep_duplicates=True, say=said.append)
    assert len(found.records) == 8, "one of each, but two rows and two synthetic ones"
    processor = build_published_processor(pixels=(1024, 262144))
    for record in found.records:
        for with_answer in (False, True):
            sample = build_sample(record, processor, with_answer=with_answer)
            height, width = (int(patches) // 2 for patches in sample.inputs["image_grid_thw"][0, 1:])
            answer = record.answer if with_answer else None
            expected = spelled(system or "", question, answer, (height, width))
            assert sample.inputs["input_ids"].tolist() == [expected], record.name


def test_a_row_may_bring_a_system_message_of_its_own(tmp_path: Path, picture: Picture) -> None:
    picture("a.png")
    chat = [
        {"role": "system", "content": "Be exact."},
        {"role": "user", "content": [{"type": "image", "image": "a.png"}, {"type": "text", "text": "Read."}]},
    ]
    rows: list[object] = [
        {"img_path": "a.png", "question": "Read."},
        {"img_path": "a.png", "question": "Read.", "system_prompt": "Quick!"},
        {"messages": chat},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    processor = build_published_processor(pixels=(1024, 262144))
    spec = str(tmp_path / "rows.jsonl")
    found = draw_pages(spec, None, None, None, 0, keep_duplicates=True, say=print)
    for record, system in zip(found.records, ("", "Quick!", "Be exact."), strict=True):
        ids = build_sample(record, processor, with_answer=False).inputs["input_ids"]
        assert ids.tolist() == [spelled(system, "Read.", None, (1, 2))]
    with pytest.raises(CalibrationError, match=r"^rows\.jsonl:2: brings a system message of its own"):
        draw_pages(spec, None, "Be slow.", None, 0, keep_duplicates=True, say=print)
