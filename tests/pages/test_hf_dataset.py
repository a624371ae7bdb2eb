"""Hugging Face datasets, all of them on the disk: nothing here may reach the network."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BadInputError, CalibrationError
from hyocr_core.pages.sources import open_source, source_name

COLORS = ("red", "lime", "blue")


@pytest.fixture(scope="module")
def library() -> Any:
    return pytest.importorskip("datasets")


@pytest.fixture(autouse=True)
def _offline(tmp_path: Path, library: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr(library.config, "HF_CACHE_HOME", tmp_path / "cache")
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "cache" / "datasets")
    yield
    library.enable_progress_bars()


@pytest.fixture
def table(library: Any) -> Any:
    """Three plain pages with their transcripts, questions and a number."""
    rows = {
        "image": [Image.new("RGB", (24, 16), color) for color in COLORS],
        "text": ["one", "", None],
        "ask": ["Read.", None, ""],
        "score": [1, 2, 3],
    }
    return library.Dataset.from_dict(rows).cast_column("image", library.Image())


@pytest.fixture
def parquet(tmp_path: Path, table: Any) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    table.to_parquet(folder / "train.parquet")
    return folder


@pytest.fixture
def saved(tmp_path: Path, table: Any) -> Path:
    table.save_to_disk(tmp_path / "saved")
    return tmp_path / "saved"


def check_pages(found: list[Record], name: str) -> None:
    assert [record.name for record in found] == [f"{name}:{row}" for row in range(3)]
    for record, color in zip(found, COLORS, strict=True):
        image = record.open_image()
        assert (image.mode, image.size) == ("RGB", (24, 16))
        assert image.getpixel((3, 3)) == Image.new("RGB", (1, 1), color).getpixel((0, 0))


@pytest.mark.parametrize("query", ["", "?stream=3", "?stream=99"])
def test_parquet_files(parquet: Path, query: str) -> None:
    check_pages(open_source(f"hf:{parquet}{query}"), "scans:train")
    check_pages(open_source(f"hf:{parquet}:train{query}"), "scans:train")


def test_streaming_takes_the_first_rows_only(parquet: Path) -> None:
    assert len(open_source(f"hf:{parquet}?stream=2")) == 2


def test_a_saved_dataset(saved: Path) -> None:
    check_pages(open_source(f"hf:{saved}"), "saved:train")


def test_saved_splits(tmp_path: Path, library: Any, table: Any) -> None:
    library.DatasetDict({"train": table, "test": table.select([2, 0])}).save_to_disk(tmp_path / "both")
    first, second = open_source(f"hf:{tmp_path / 'both'}:test?text=text")
    assert (first.name, first.answer) == ("both:test:0", None)
    assert (second.name, second.answer) == ("both:test:1", "one")
    assert second.open_image().getpixel((0, 0)) == (255, 0, 0)
    with pytest.raises(CalibrationError, match=r"both: name a split; there are: train, test$"):
        open_source(f"hf:{tmp_path / 'both'}")
    with pytest.raises(CalibrationError, match=r"no split 'tset'; there are: train, test$"):
        open_source(f"hf:{tmp_path / 'both'}:tset")


def test_texts_and_prompts_are_read_from_the_columns_named(parquet: Path) -> None:
    bare = open_source(f"hf:{parquet}")
    assert {(record.question, record.answer) for record in bare} == {(None, None)}
    for query in ("text=text&prompt=ask", "text=text&prompt=ask&stream=3"):
        found = open_source(f"hf:{parquet}?{query}")
        assert [record.answer for record in found] == ["one", "", None]
        assert [record.question for record in found] == ["Read.", None, None]


def test_of_a_list_of_texts_the_first_counts(tmp_path: Path, table: Any) -> None:
    answers = table.add_column("answers", [["one", "1"], [], None])
    (tmp_path / "several").mkdir()
    answers.to_parquet(tmp_path / "several" / "train.parquet")
    for stream in ("", "&stream=3"):
        found = open_source(f"hf:{tmp_path / 'several'}?text=answers{stream}")
        assert [record.answer for record in found] == ["one", None, None]


def test_a_missing_column_lists_the_columns(parquet: Path, saved: Path) -> None:
    for place in (f"hf:{parquet}?", f"hf:{saved}?", f"hf:{parquet}?stream=2&"):
        for query in ("image=page", "text=transcript", "prompt=question"):
            column = query.partition("=")[2]
            with pytest.raises(CalibrationError, match=rf"no column '{column}'; there are: image, text, ask, score$"):
                open_source(place + query)


def test_a_column_of_another_kind_is_refused(parquet: Path) -> None:
    for stream in ("", "&stream=2"):
        with pytest.raises(CalibrationError, match=r"column 'text' holds no images \(str\)"):
            open_source(f"hf:{parquet}?image=text{stream}")
        with pytest.raises(CalibrationError, match=r"column 'score', row 0: expected text, found int"):
            open_source(f"hf:{parquet}?text=score{stream}")


def test_an_image_folder_with_metadata(tmp_path: Path, picture: Callable[..., Path]) -> None:
    rows = []
    for place, color in enumerate(COLORS):
        picture(f"folder/train/{place}.png", size=(24, 16), color=color)
        rows.append(json.dumps({"file_name": f"{place}.png", "text": color}))
    (tmp_path / "folder" / "train" / "metadata.jsonl").write_text("\n".join(rows))
    found = open_source(f"hf:{tmp_path / 'folder'}?text=text")
    check_pages(found, "folder:train")
    assert [record.answer for record in found] == list(COLORS)
    streamed = open_source(f"hf:{tmp_path / 'folder'}?stream=1")
    with pytest.raises(CalibrationError, match="not streamed; leave stream= out"):
        streamed[0].open_image()


def test_a_row_cannot_name_a_file_outside_the_dataset(
    tmp_path: Path, library: Any, picture: Callable[..., Path]
) -> None:
    outside = picture("private.png")
    (tmp_path / "sly").mkdir()
    rows = library.Dataset.from_dict({"image": [{"bytes": None, "path": str(outside)}]})
    rows.cast_column("image", library.Image(decode=False)).data.table.to_pandas().to_parquet(
        tmp_path / "sly" / "a.parquet"
    )
    (record,) = open_source(f"hf:{tmp_path / 'sly'}")
    with pytest.raises(CalibrationError, match="outside the dataset"):
        record.open_image()


def test_rows_without_an_image_and_with_a_damaged_one_are_refused_when_opened(tmp_path: Path, library: Any) -> None:
    library.Dataset.from_dict({"image": [None, b"", b"no image"]}).save_to_disk(tmp_path / "odd")
    for record, reason in zip(
        open_source(f"hf:{tmp_path / 'odd'}"), ("holds no image", "is no PNG", "is no PNG"), strict=True
    ):
        with pytest.raises(CalibrationError, match=reason):
            record.open_image()


def test_a_dataset_without_rows_is_refused(tmp_path: Path, table: Any) -> None:
    (tmp_path / "empty").mkdir()
    table.select([]).to_parquet(tmp_path / "empty" / "train.parquet")
    for query, reason in (("", "the datasets library cannot read it: "), ("?stream=2", "as it has no row")):
        with pytest.raises(CalibrationError, match=reason):
            open_source(f"hf:{tmp_path / 'empty'}{query}")


def test_what_cannot_be_loaded_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"PAR1 no parquet")
    (tmp_path / "bare").mkdir()
    for source in (f"hf:{tmp_path / 'broken'}", f"hf:{tmp_path / 'bare'}", "hf:nobody/nothing:train"):
        with pytest.raises(CalibrationError, match=r"the datasets library cannot read it: ") as caught:
            open_source(source)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["csv", "pandas", "", "no/such/folder", "./scans", "/scans", "~/none", "scans/"])
def test_only_folders_and_hub_names_reach_the_library(name: str) -> None:
    with pytest.raises(CalibrationError, match="no such folder; a dataset of the hub is named OWNER/NAME"):
        open_source(f"hf:{name}")


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("img=page", "img: unknown key; did you mean image?"),
        ("column=page", "column: unknown key; valid keys: image, text, prompt, config, stream"),
        ("image=", "image = '': String should have at least 1 character"),
        ("stream=0", "stream = '0': should be greater than or equal to 1"),
        ("stream=many", "stream = 'many': should be a valid integer, unable to parse string as an integer"),
        ("stream=9999999", "stream = '9999999': should be less than or equal to 100000"),
    ],
)
def test_a_wrong_option_is_refused(parquet: Path, query: str, problem: str) -> None:
    with pytest.raises(CalibrationError) as caught:
        open_source(f"hf:{parquet}?{query}")
    assert str(caught.value) == f"hf:{parquet}?{query}: after the ?: {problem}"


def test_no_code_of_a_dataset_is_run(tmp_path: Path, parquet: Path) -> None:
    """Older versions of the library ran a script of the folder's name."""
    (parquet / "scans.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(CalibrationError, match="scripts are no longer supported"):
        open_source(f"hf:{parquet}")
    assert not (tmp_path / "ran").exists()


def test_a_pickle_is_not_read(tmp_path: Path, parquet: Path) -> None:
    shutil.copytree(parquet, tmp_path / "only")
    (tmp_path / "only" / "train.parquet").rename(tmp_path / "only" / "train.pkl")
    with pytest.raises(CalibrationError, match="the datasets library cannot read it"):
        open_source(f"hf:{tmp_path / 'only'}")


def test_reports_name_a_dataset_without_its_local_path(parquet: Path) -> None:
    assert source_name(f"hf:{parquet}:train?text=text") == "hf:scans:train?text=text"
    assert source_name("hf:nobody/nothing:train") == "hf:nobody/nothing:train"


def test_without_the_library_the_extra_is_named(parquet: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(BadInputError, match=r"pip install 'hyocr-core\[datasets\]'"):
        open_source(f"hf:{parquet}")
