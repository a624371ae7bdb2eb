"""The source `olmocr-bench`: a downloaded copy of olmOCR-bench (Poznanski et al. 2025) as it is published.

The folder has `bench_data/`, or is that: files of tests, a JSON object in each line, and the pages in `pdfs/`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from hyocr_core.contract.page_source import Record, Source, SourceConfig
from hyocr_core.errors import CalibrationError
from hyocr_core.outside.home import expanded
from hyocr_core.outside.json_text import parse_json
from hyocr_core.pages.pdf import page_of_pdf
from hyocr_core.pages.text_file import read_utf8

PDFS, DATA = "pdfs", "bench_data"
_WHERE = "give the folder of a copy of the data set allenai/olmOCR-bench"

_NEEDS = {
    "present": ("text",),
    "absent": ("text",),
    "order": ("before", "after"),
    "table": ("cell",),
    "math": ("math",),
}
"""Kind of test -> what it must say; others are left out."""


class _Test(BaseModel):
    """What every test says; the rest is for whoever judges it."""

    model_config = ConfigDict(frozen=True, extra="allow")

    pdf: Annotated[str, Field(min_length=1)]
    page: Annotated[int, Field(ge=1)]
    id: Annotated[str, Field(min_length=1)]
    type: str
    max_diffs: Annotated[int, Field(ge=0)] | None = None
    checked: str | None = None


class OlmOcrBenchConfig(SourceConfig):
    file: str | None = Field(
        None, min_length=1, description="take the tests of one file alone, such as table_tests; all files by default"
    )


class OlmOcrBenchSource(Source):
    """The pages of olmOCR-bench, which have no transcripts but tests of what must stand there, or must not.

    The tests of a page are its `checks`, which the metric `olmocr-tests` judges.
    """

    api_version: ClassVar[int] = 1
    config_class: ClassVar[type[SourceConfig]] = OlmOcrBenchConfig

    def records(self) -> list[Record]:
        """Raises CalibrationError for a folder of another layout, with what it lacks."""
        folder = _data(expanded(self.place))
        checks: dict[tuple[str, int], list[str]] = {}
        for file in self._files(folder):
            for test, line in _tests(file):
                checks.setdefault((test.pdf, test.page), []).append(line)
        if not checks:
            raise CalibrationError("holds no test of a kind that is judged")
        return [_record(folder / PDFS, pdf, page, "\n".join(lines)) for (pdf, page), lines in sorted(checks.items())]

    def _files(self, folder: Path) -> list[Path]:
        files = sorted(path for path in folder.glob("*.jsonl") if path.is_file())
        name: str | None = self.config.file
        if name is None:
            return files
        chosen = [file for file in files if name in (file.stem, file.name)]
        if not chosen:
            raise CalibrationError(f"has no file {name}; there are {', '.join(file.stem for file in files)}")
        return chosen


def _data(folder: Path) -> Path:
    """Where the tests lie. Raises CalibrationError with what is missing."""
    if not folder.is_dir():
        raise CalibrationError(f"no such folder; {_WHERE}")
    data = folder / DATA if (folder / DATA).is_dir() else folder
    lacks = [] if any(data.glob("*.jsonl")) else ["files of tests (*.jsonl)"]
    lacks += [] if (data / PDFS).is_dir() else [f"{PDFS}/"]
    if lacks:
        raise CalibrationError(f"is not laid out as olmOCR-bench: lacks {' and '.join(lacks)}; {_WHERE}")
    return data


def _tests(file: Path) -> Iterator[tuple[_Test, str]]:
    """The tests of a file that can be judged, and each as one line of JSON."""
    for number, line in enumerate(read_utf8(file, file.name).splitlines(), start=1):
        if not line.strip():
            continue
        try:
            test = _Test.model_validate(parse_json(line))
            lacks = [key for key in _NEEDS.get(test.type, ()) if not _is_said(getattr(test, key, None))]
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise _wrong(file, number, f"{'.'.join(map(str, first['loc'])) or 'it'}: {first['msg'].lower()}") from error
        except ValueError as error:
            raise _wrong(file, number, str(error)) from error
        if lacks:
            raise _wrong(file, number, f"a test of the kind {test.type} lacks {lacks[0]}")
        if test.type in _NEEDS and test.checked != "rejected":
            yield test, test.model_dump_json(exclude_none=True)


def _is_said(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _wrong(file: Path, number: int, reason: str) -> CalibrationError:
    return CalibrationError(f"{file.name}:{number} is no test of olmOCR-bench: {reason}; {_WHERE}")


def _record(pdfs: Path, name: str, page: int, checks: str) -> Record:
    path = pdfs / name
    if not path.resolve().is_relative_to(pdfs.resolve()):
        raise CalibrationError(f"a test names the page {name}, which is not in {PDFS}/")
    if not path.is_file():
        raise CalibrationError(f"{PDFS}/{name} is missing: download all of it")
    return Record(f"{name}:{page}", None, None, page_of_pdf(path, page), checks=checks)
