"""A copy of OmniDocBench is read as it is published; a folder of another layout is refused with what it lacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from hyocr_core.errors import CalibrationError
from hyocr_core.pages.prompts import TASKS
from hyocr_core.pages.sources import open_source, source_name
from tests.benchmark_folders import HEIGHT, LATEX, TABLE, TRANSCRIPTS, WIDTH, omnidocbench


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return omnidocbench(tmp_path_factory.mktemp("omni") / "OmniDocBench")


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "OmniDocBench")


def change(folder: Path, page: int, *path: str | int, value: Any) -> None:
    file = folder / "OmniDocBench.json"
    samples = json.loads(file.read_text(encoding="utf-8"))
    inside = samples[page]
    for key in path[:-1]:
        inside = inside[key]
    inside[path[-1]] = value
    file.write_text(json.dumps(samples), encoding="utf-8")


def refusal(folder: Path, options: str = "") -> str:
    with pytest.raises(CalibrationError) as caught:
        open_source(f"omnidocbench:{folder}{options}")
    return str(caught.value).removeprefix(f"omnidocbench:{folder}{options}: ")


def test_every_page_has_its_transcript_in_the_models_own_format(published: Path) -> None:
    records = open_source(f"omnidocbench:{published}")
    assert {record.name: record.answer for record in records} == TRANSCRIPTS
    assert {record.question for record in records} == {None}
    assert {record.open_image().size for record in records} == {(WIDTH, HEIGHT)}
    assert source_name(f"omnidocbench:{published}") == "omnidocbench:OmniDocBench"


@pytest.mark.parametrize(
    ("part", "name", "answer", "size"),
    [("table", "table.png:1", TABLE, (200, 60)), ("formula", "formula.png:2", f"$${LATEX}$$", (100, 24))],
)
def test_tables_and_formulas_are_cut_out(published: Path, part: str, name: str, answer: str, size: Any) -> None:
    [record] = open_source(f"omnidocbench:{published}?part={part}")
    assert (record.name, record.answer, record.question) == (name, answer, TASKS[part]["zh"])
    assert record.open_image().size == size


def test_boxes_are_in_units_of_the_page_that_was_marked(folder: Path) -> None:
    change(folder, 0, "page_info", "width", value=2 * WIDTH)
    [record] = open_source(f"omnidocbench:{folder}?part=table")
    assert record.open_image().size == (100, 60)


def test_a_box_beside_the_page_costs_that_page_alone(folder: Path) -> None:
    change(folder, 0, "layout_dets", 0, "poly", value=[1e4] * 8)
    [record] = open_source(f"omnidocbench:{folder}?part=table")
    with pytest.raises(CalibrationError, match="lies outside of the page"):
        record.open_image()


def test_a_formula_without_delimiters_gets_some(folder: Path) -> None:
    change(folder, 1, "layout_dets", 1, "latex", value=LATEX)
    [record] = open_source(f"omnidocbench:{folder}?part=formula")
    assert record.answer == f"$${LATEX}$$"


def test_what_is_to_be_ignored_is(folder: Path) -> None:
    change(folder, 0, "layout_dets", 1, "ignore", value=True)
    assert open_source(f"omnidocbench:{folder}")[0].answer == TABLE


def test_one_subset_can_be_taken_alone(folder: Path) -> None:
    assert [record.name for record in open_source(f"omnidocbench:{folder}?subset=table_hard")] == ["table.png"]
    assert refusal(folder, "?subset=easy") == "has no page of the subset easy; there are table_hard, v1.5"
    for page in range(len(TRANSCRIPTS)):  # as in versions before 1.6
        change(folder, page, "page_info", "page_attribute", value={})
    line = refusal(folder, "?subset=v1.5")
    assert line == "has no page of the subset v1.5; there are no subsets: it is older"


@pytest.mark.parametrize(
    ("lost", "lacks"),
    [
        (("OmniDocBench.json",), "lacks OmniDocBench.json"),
        (("images",), "lacks images/"),
        (("images", "OmniDocBench.json"), "lacks OmniDocBench.json and images/"),
    ],
)
def test_a_folder_of_another_layout_is_refused_with_what_it_lacks(
    folder: Path, lost: tuple[str, ...], lacks: str
) -> None:
    for name in lost:
        (folder / name).rename(folder / f"other-{name}")
    where = "give the folder of a copy of the data set opendatalab/OmniDocBench"
    assert refusal(folder) == f"is not laid out as OmniDocBench: {lacks}; {where}"


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("page_info",), None, "OmniDocBench.json is not laid out as OmniDocBench's: 3.page_info: input should be"),
        (("page_info", "image_path"), "../secret.png", "names the image ../secret.png, which is not in images/"),
        (("page_info", "image_path"), "lost.png", "1 of 6 images are not in images/, such as lost.png: download all"),
        (("page_info", "width"), 0, "3.page_info.width: input should be greater than 0"),
        (("layout_dets",), {}, "3.layout_dets: input should be a valid list"),
        (("layout_dets", 0, "poly"), [1, 2], "3.layout_dets.0.poly: list should have at least 8 items"),
    ],
)
def test_a_file_of_another_layout_is_refused_with_the_place(folder: Path, path: Any, value: Any, message: str) -> None:
    change(folder, 3, *path, value=value)
    assert message in refusal(folder)


@pytest.mark.parametrize(
    ("text", "message"),
    [("[]", "holds no page"), ("{}", "the whole: input should be a valid list"), ("[1", "cannot be read as JSON")],
)
def test_a_file_that_is_none_is_refused(folder: Path, text: str, message: str) -> None:
    (folder / "OmniDocBench.json").write_text(text, encoding="utf-8")
    assert message in refusal(folder)


def test_a_part_that_no_page_has_and_an_unknown_one_are_refused(folder: Path) -> None:
    change(folder, 0, "layout_dets", value=[])
    assert refusal(folder, "?part=table") == "no page has a table"
    assert "part = 'chart'" in refusal(folder, "?part=chart")
    assert "no such folder" in refusal(folder / "nowhere")
