"""A copy of olmOCR-bench is read as it is published; a folder of another layout is refused with what it lacks."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from hyocr_core.errors import CalibrationError
from hyocr_core.pages.sources import open_source
from tests.benchmark_folders import TESTS, olmocr_bench

pytest.importorskip("pypdfium2")

WHERE = "give the folder of a copy of the data set allenai/olmOCR-bench"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return olmocr_bench(tmp_path_factory.mktemp("olm") / "olmOCR-bench")


@pytest.fixture
def folder(published: Path, tmp_path: Path) -> Path:
    return shutil.copytree(published, tmp_path / "olmOCR-bench")


def refusal(folder: Path, options: str = "") -> str:
    with pytest.raises(CalibrationError) as caught:
        open_source(f"olmocr-bench:{folder}{options}")
    return str(caught.value).removeprefix(f"olmocr-bench:{folder}{options}: ")


def test_every_page_has_the_tests_of_all_files(published: Path) -> None:
    records = open_source(f"olmocr-bench:{published}")
    found = [json.loads(line) for record in records for line in (record.checks or "").splitlines()]
    judged = [
        f"{file}_{number}"
        for file, tests in TESTS.items()
        for number, test in enumerate(tests)
        if test["type"] != "format"
    ]
    assert sorted(test["id"] for test in found) == sorted(judged)
    assert {record.answer for record in records} == {None}
    assert [record.name for record in records] == sorted({f"{test['pdf']}:1" for test in found})
    assert records[0].open_image().mode == "RGB"


def test_the_folder_of_the_tests_does_too(published: Path) -> None:
    inner, outer = (open_source(f"olmocr-bench:{folder}") for folder in (published / "bench_data", published))
    assert [(record.name, record.checks) for record in inner] == [(record.name, record.checks) for record in outer]


def test_one_file_can_be_taken_alone(published: Path) -> None:
    records = open_source(f"olmocr-bench:{published}?file=arxiv_math")
    assert [record.name for record in records] == ["arxiv_math/formula.pdf:1"]
    line = refusal(published, "?file=tables")
    assert line.startswith("has no file tables; there are arxiv_math, headers_footers, multi_column")


def test_a_folder_of_another_layout_is_refused_with_what_it_lacks(folder: Path) -> None:
    (folder / "bench_data" / "pdfs").rename(folder / "pdfs")
    assert refusal(folder) == f"is not laid out as olmOCR-bench: lacks pdfs/; {WHERE}"
    for file in (folder / "bench_data").glob("*.jsonl"):
        file.unlink()
    assert refusal(folder) == f"is not laid out as olmOCR-bench: lacks files of tests (*.jsonl) and pdfs/; {WHERE}"
    assert refusal(folder / "nowhere") == f"no such folder; {WHERE}"


def test_a_page_that_is_missing_is_named(folder: Path) -> None:
    (folder / "bench_data" / "pdfs" / "arxiv_math" / "formula.pdf").unlink()
    assert refusal(folder) == "pdfs/arxiv_math/formula.pdf is missing: download all of it"


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "arxiv_math.jsonl:1 is no test of olmOCR-bench: "),
        ("[]", "arxiv_math.jsonl:1 is no test of olmOCR-bench: it: "),
        ('{"pdf": "a.pdf", "page": 0, "id": "a", "type": "math", "math": "x"}', "page: input should be greater than"),
        ('{"page": 1, "id": "a", "type": "math", "math": "x"}', "pdf: field required"),
        ('{"pdf": "a.pdf", "page": 1, "id": "a", "type": "math"}', "a test of the kind math lacks math"),
        ('{"pdf": "../a.pdf", "page": 1, "id": "a", "type": "math", "math": "x"}', "../a.pdf, which is not in pdfs/"),
        ('{"pdf": "a.pdf", "page": 1, "id": "a", "type": "format"}', "holds no test of a kind that is judged"),
        (
            '{"pdf": "a.pdf", "page": 1, "id": "a", "type": "math", "math": "x", "max_diffs": -1}',
            "max_diffs: input should be greater than or equal to 0",
        ),
    ],
)
def test_a_line_that_is_no_test_is_refused_with_its_place(folder: Path, line: str, message: str) -> None:
    (folder / "bench_data" / "arxiv_math.jsonl").write_text(line, encoding="utf-8")
    assert message in refusal(folder, "?file=arxiv_math")
