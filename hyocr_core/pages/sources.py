"""Where pages come from, by one syntax for `--calib` and `--data`, and which of them are taken."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.outside.home import expanded
from hyocr_core.pages import image_kinds, pdf
from hyocr_core.pages.duplicates import Distinct
from hyocr_core.pages.folder import read_file, read_folder
from hyocr_core.pages.found import Found
from hyocr_core.pages.jsonl import read_jsonl
from hyocr_core.pages.prompts import with_system, with_task
from hyocr_core.pages.synthetic import DEFAULT_PAGES, SCHEME
from hyocr_core.plugin.schemes import installed_sources, open_scheme
from hyocr_core.progress import doing, idle
from hyocr_core.shown import message

FORMS = "a folder of images, a JSONL, PDF or image file, hf:DATASET or synthetic[:N]"


LONGEST_NAME = 200
"""Characters of a page's name, which stands in messages, tables, records and reports."""


def draw_pages(
    spec: str,
    task: str | None,
    system: str | None,
    num_samples: int | None,
    seed: int,
    *,
    keep_duplicates: bool,
    say: Callable[[str], None],
) -> Found:
    """The records of a source that a run uses, those without a question asked that of `task`, and what it leaves out.

    system: the system message of all of them, which then may bring none; None leaves each its own, or the default.
    say: is told of files that are no pages, and of pages left out as copies; see `select`.
    """
    doing(f"looking for pages in {source_name(spec)}")
    found = find_pages(spec)
    records = with_task(with_system(found.records, system), task)
    chosen = _select(records, num_samples, seed, keep_duplicates=keep_duplicates)
    idle()
    drawn = replace(chosen, files=found.files)
    for line in drawn.lines():
        say(line)
    return drawn


def open_source(spec: str) -> list[Record]:
    """List the pages of a source, always in the same order; images are read only when a record is used.

    spec: one of these, or several joined by commas.

    - `pages/`: a folder of images, PDF and TIFF files, searched in depth, sorted by relative path; hidden files and
      folders are left out, links to folders not followed; `page.txt` beside `page.png` is its transcript, beside
      `scan.pdf` those of its pages, separated by form feeds.
    - `data.jsonl`: rows of `{"img_path": "page.png", "question": "...", "answer": "..."}`, or chats in the OpenAI or
      Hugging Face form, with the images beside the file.
    - `page.png`: one page; `scan.pdf`: its pages, rendered; `fax.tif`: those of a TIFF file. With transcripts
      as in a folder.
    - `hf:OWNER/NAME:train?image=page&text=transcript`: a Hugging Face dataset of the hub, or `hf:FOLDER` on the disk;
      see `hyocr_core.pages.hf_dataset`.
    - `synthetic:64`: rendered text pages. A folder whose name is `synthetic` is given as `./synthetic`.
    - `SCHEME:PLACE?key=value`: what a distribution offers as the source SCHEME; see `hyocr_core.contract.page_source`.
    - `forms.jsonl,synthetic:32,pages/`: all pages of all of them. A comma in the path of a file or folder that exists
      is part of it.

    Raises CalibrationError naming the source, and the file and line where there is one; BadInputError for a library
    that is not installed.
    """
    return find_pages(spec).records


def find_pages(spec: str) -> Found:
    """The pages of a source as `open_source` lists them, and what is left out: files of a folder that are no pages."""
    records: list[Record] = []
    files: dict[str, str] = {}
    names: set[str] = set()
    for place, part in enumerate(_split(spec), start=1):
        opened = _open_one(part)
        found = [_plain(record) for record in opened.records]
        if not names.isdisjoint(record.name for record in found):
            found = [replace(record, name=f"{record.name} (source {place})") for record in found]
        names.update(record.name for record in found)
        records += found
        for name, why in opened.files.items():
            shown = message(name, LONGEST_NAME)
            files[f"{shown} (source {place})" if shown in files else shown] = message(why)
    return Found(records, files)


def _plain(record: Record) -> Record:
    """The record with a name that can be shown, and with line breaks as models write them, whatever its source had."""
    return replace(
        record,
        name=message(record.name, LONGEST_NAME),
        question=_unix(record.question),
        answer=_unix(record.answer),
        system=_unix(record.system),
    )


def _unix(text: str | None) -> str | None:
    return None if text is None else text.replace("\r\n", "\n")


def source_name(spec: str) -> str:
    """The source as a report names it: without local paths."""
    return ",".join(_name_one(part) for part in _split(spec))


def select(
    records: Sequence[Record], num_samples: int | None, seed: int, *, keep_duplicates: bool = False
) -> list[Record]:
    """Draw `num_samples` records without replacement, in their original order; all of them if None or too few.

    A page whose texts are those of a page already drawn, and whose image is the same, or the same but scaled or
    compressed in another way, is left out and another drawn for it, unless keep_duplicates. To tell, every image drawn
    is read.
    """
    return _select(records, num_samples, seed, keep_duplicates=keep_duplicates).records


def _select(records: Sequence[Record], num_samples: int | None, seed: int, *, keep_duplicates: bool) -> Found:
    if num_samples is not None and num_samples < 1:
        raise CalibrationError(f"{num_samples} samples asked for; ask for at least 1")
    wanted = len(records) if num_samples is None else min(num_samples, len(records))
    distinct = Distinct()
    chosen: list[int] = []
    for index in _draw(len(records), wanted, seed):
        if len(chosen) == wanted:
            break
        doing(f"looking for copies among {wanted} pages: {len(chosen) + 1}")
        if keep_duplicates or distinct.take(records[index]):
            chosen.append(index)
    return Found([records[index] for index in sorted(chosen)], copies=distinct.copies)


def _draw(count: int, wanted: int, seed: int) -> Iterator[int]:
    """The places that are wanted, and after them the others, to fill gaps, in random order."""
    if wanted == count:
        yield from range(count)
        return
    rng = random.Random(seed)  # noqa: S311 - no secret
    drawn = rng.sample(range(count), wanted)
    yield from sorted(drawn)
    rest = sorted(set(range(count)).difference(drawn))
    yield from rng.sample(rest, len(rest))


def _split(spec: str) -> list[str]:
    """Split at commas, but not inside the path of a file or folder that exists: the longest such path wins."""
    parts = spec.split(",")
    found, start = [], 0
    while start < len(parts):
        ends = range(len(parts), start, -1)
        whole = (end for end in ends if end == start + 1 or _exists(",".join(parts[start:end])))
        end = next(whole)
        found.append(",".join(parts[start:end]))
        start = end
    return found


def _exists(spec: str) -> bool:
    """Whether this is a path that exists, or has one after its scheme, before options or what a colon sets apart."""
    scheme, _, rest = spec.partition(":")
    place = "" if "," in scheme else rest.partition("?")[0]
    return any(_is_there(path) for path in (spec, place, place.rpartition(":")[0]) if path)


def _is_there(path: str) -> bool:
    try:
        return expanded(path).exists()
    except OSError:  # such as a name longer than the file system allows
        return False


def _open_one(spec: str) -> Found:
    source = open_scheme(f"{SCHEME}:{DEFAULT_PAGES}" if spec == SCHEME else spec)
    if source is not None:
        return Found(source.records(), source.files)
    path = expanded(spec)
    if spec and path.is_dir():
        return read_folder(path)
    if not (spec and path.exists()):
        raise CalibrationError(f"{spec or 'empty source'}: no such file or folder; give {_forms()}")
    suffix = path.suffix.lower()
    needs = image_kinds.lacking(suffix)
    if needs is not None:
        raise CalibrationError(f"{spec}: {needs}")
    if suffix == pdf.SUFFIX or suffix in image_kinds.suffixes():
        return Found(read_file(path, path.name))
    return Found(read_jsonl(path))


def _forms() -> str:
    """The forms of a source, and the schemes that other distributions add."""
    added = sorted({f"{entry.name}:" for entry in installed_sources() if not entry.own})
    return f"{FORMS}; also installed: {', '.join(added)}" if added else FORMS


def _name_one(spec: str) -> str:
    if spec == SCHEME:
        return spec
    try:
        source = open_scheme(spec)
        if source is not None:
            return source.label
    except CalibrationError:
        # Of a record that was made where the source was installed, or worked.
        pass
    return expanded(spec).resolve().name
