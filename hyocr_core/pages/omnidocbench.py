"""The source `omnidocbench`: a downloaded copy of OmniDocBench (Ouyang et al. 2024) as it is published.

The folder has `OmniDocBench.json` and the pages in `images/`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from hyocr_core.contract.page_source import Record, Source, SourceConfig
from hyocr_core.errors import CalibrationError
from hyocr_core.outside.home import expanded
from hyocr_core.outside.json_text import parse_json
from hyocr_core.outside.regular import read_regular
from hyocr_core.pages.images import load_image
from hyocr_core.pages.prompts import TASKS

if TYPE_CHECKING:
    from PIL.Image import Image

FILE, IMAGES = "OmniDocBench.json", "images"
_WHERE = "give the folder of a copy of the data set opendatalab/OmniDocBench"

_TEXTS = {
    "code_algorithm", "code_algorithm_caption", "code_txt", "code_txt_caption", "figure_caption", "figure_footnote",
    "reference", "table_caption", "table_footnote", "text_block", "title",
}  # fmt: skip
"""Categories of text that stands in a transcript: those that the benchmark's own evaluation matches, without what runs
along the edges, which the official question leaves out. Others are masked, or frames around these (`list_group`)."""

_PARTS = {"table": "table", "formula": "equation_isolated"}
"""Task -> category of what is cut out for it."""
_SHOWN = _TEXTS.union(_PARTS.values())


class _Outside(BaseModel):
    """What a page has beside these keys is not looked at."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class _Element(_Outside):
    category_type: str
    poly: Annotated[list[float], Field(min_length=8, max_length=8)]
    ignore: bool = False
    order: float | None = None
    anno_id: int | str | None = None
    text: str | None = None
    latex: str | None = None
    html: str | None = None


class _PageAttribute(_Outside):
    subset: str | None = None


class _PageInfo(_Outside):
    image_path: Annotated[str, Field(min_length=1)]
    width: Annotated[float, Field(gt=0)]
    height: Annotated[float, Field(gt=0)]
    page_attribute: _PageAttribute = _PageAttribute()


class _Relation(_Outside):
    relation_type: str = ""
    source_anno_id: int | str | None = None
    target_anno_id: int | str | None = None


class _Extra(_Outside):
    relation: list[_Relation] = []


class _Page(_Outside):
    page_info: _PageInfo
    layout_dets: list[_Element]
    extra: _Extra = _Extra()


class OmniDocBenchConfig(SourceConfig):
    part: Literal["page", "table", "formula"] = Field(
        "page", description="whole pages; or what is marked on them as a table or a displayed formula, cut out"
    )
    subset: str | None = Field(
        None,
        min_length=1,
        description="take the pages of one subset of version 1.6 alone: v1.5, equation_hard, layout_hard or table_hard",
    )


class OmniDocBenchSource(Source):
    """The pages of OmniDocBench with their ground truth as the model would write it, or their tables or formulas alone.

    A transcript is Markdown in the reading order, tables in HTML and formulas in LaTeX; headings have no level, since
    the ground truth has none. Headers, footers and numbers of pages and formulas are left out.
    """

    api_version: ClassVar[int] = 1
    config_class: ClassVar[type[SourceConfig]] = OmniDocBenchConfig

    def records(self) -> list[Record]:
        """Raises CalibrationError for a folder of another layout, with what it lacks."""
        folder = expanded(self.place)
        _check_layout(folder)
        pages = _of_subset(_pages(folder / FILE), self.config.subset)
        images = [_image(folder / IMAGES, page.page_info.image_path) for page in pages]
        _check_images(images)
        part: str = self.config.part
        if part == "page":
            return [_whole(page, image) for page, image in zip(pages, images, strict=True)]
        found = [record for page, image in zip(pages, images, strict=True) for record in _cut(page, image, part)]
        if not found:
            raise CalibrationError(f"no page has a {part}")
        return found


def _check_layout(folder: Path) -> None:
    lacks = [] if (folder / FILE).is_file() else [FILE]
    lacks += [] if (folder / IMAGES).is_dir() else [f"{IMAGES}/"]
    if not folder.is_dir():
        raise CalibrationError(f"no such folder; {_WHERE}")
    if lacks:
        raise CalibrationError(f"is not laid out as OmniDocBench: lacks {' and '.join(lacks)}; {_WHERE}")


def _pages(file: Path) -> list[_Page]:
    try:
        pages = TypeAdapter(list[_Page]).validate_python(parse_json(read_regular(file)))
    except OSError as error:
        raise CalibrationError(f"{FILE} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "the whole"
        raise CalibrationError(
            f"{FILE} is not laid out as OmniDocBench's: {place}: {first['msg'].lower()}; {_WHERE}"
        ) from error
    except ValueError as error:
        raise CalibrationError(f"{FILE} cannot be read as JSON: {error}") from error
    if not pages:
        raise CalibrationError(f"{FILE} holds no page")
    return pages


def _of_subset(pages: list[_Page], name: str | None) -> list[_Page]:
    found = [page for page in pages if name in (None, page.page_info.page_attribute.subset)]
    if not found:
        known = {page.page_info.page_attribute.subset or "" for page in pages} - {""}
        raise CalibrationError(
            f"has no page of the subset {name}; there are {', '.join(sorted(known)) or 'no subsets: it is older'}"
        )
    return found


def _image(images: Path, name: str) -> Path:
    """Where a page lies. Raises CalibrationError for a path that leads out of the folder."""
    path = images / name
    if not path.resolve().is_relative_to(images.resolve()):
        raise CalibrationError(f"{FILE} names the image {name}, which is not in {IMAGES}/")
    return path


def _check_images(images: Sequence[Path]) -> None:
    missing = [path.name for path in images if not path.is_file()]
    if missing:
        raise CalibrationError(
            f"{len(missing)} of {len(images)} images are not in {IMAGES}/, such as {missing[0]}: download all of it"
        )


def _whole(page: _Page, image: Path) -> Record:
    return Record(page.page_info.image_path, None, transcript(page), partial(load_image, image))


def transcript(page: _Page) -> str:
    """What a page says: paragraphs, HTML tables and displayed formulas in the reading order."""
    shown = [element for element in page.layout_dets if not element.ignore and element.category_type in _SHOWN]
    ordered = sorted(shown, key=lambda element: (element.order is None, element.order or 0))
    joined = _goes_on(page, {element.anno_id for element in shown})
    texts: dict[int | str | None, str] = {}
    for place, element in enumerate(ordered):
        key = joined.get(element.anno_id, element.anno_id) if element.anno_id is not None else f"unnamed {place}"
        texts[key] = texts.get(key, "") + _written(element)
    return "\n\n".join(text.strip() for text in texts.values() if text.strip())


def _goes_on(page: _Page, shown: set[int | str | None]) -> Mapping[int | str | None, int | str | None]:
    """Element -> the first one of its paragraph, for paragraphs that break off and go on elsewhere."""
    first: dict[int | str | None, int | str | None] = {}
    for relation in page.extra.relation:
        pair = relation.source_anno_id, relation.target_anno_id
        if relation.relation_type == "truncated" and shown.issuperset(pair):
            start = first.get(pair[0], pair[0])
            first = {key: start if value == pair[1] else value for key, value in first.items()}
            first[pair[1]] = start
    return first


def _written(element: _Element) -> str:
    """An element as the model would write it."""
    if element.category_type == "table":
        return re.sub(r"</?(?:html|body)\b[^>]*>", "", element.html or "").strip()
    if element.category_type == "equation_isolated":
        latex = (element.latex or "").strip()
        return latex if not latex or latex.startswith(("$", "\\[", "\\begin")) else f"$${latex}$$"
    return element.text or ""


def _cut(page: _Page, image: Path, part: str) -> Iterator[Record]:
    """The tables or formulas of a page, each with the official question for it."""
    question = TASKS[part]["zh"]
    for number, element in enumerate(page.layout_dets, start=1):
        written = _written(element)
        if element.category_type == _PARTS[part] and not element.ignore and written:
            name = f"{page.page_info.image_path}:{number}"
            yield Record(name, question, written, partial(_load_cut, image, page.page_info, element.poly))


def _load_cut(path: Path, info: _PageInfo, poly: Sequence[float]) -> Image:
    """What lies in the box around a polygon, whose units are those of the page's own size."""
    image = load_image(path)
    across, down = image.width / info.width, image.height / info.height
    left, right = (round(pick(poly[::2]) * across) for pick in (min, max))
    top, bottom = (round(pick(poly[1::2]) * down) for pick in (min, max))
    box = max(left, 0), max(top, 0), min(right, image.width), min(bottom, image.height)
    if box[0] >= box[2] or box[1] >= box[3]:
        raise CalibrationError("what is marked lies outside of the page")
    return image.crop(box)
