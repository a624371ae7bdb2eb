"""Where pages come from, by one syntax for `--calib` and `--data`, and which of them are taken."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from hyocr_core.errors import CalibrationError
from hyocr_core.pages import hf_dataset, pdf
from hyocr_core.pages.duplicates import Distinct
from hyocr_core.pages.folder import read_folder
from hyocr_core.pages.images import SUFFIXES
from hyocr_core.pages.jsonl import read_jsonl
from hyocr_core.pages.prompts import with_task
from hyocr_core.pages.records import Record
from hyocr_core.pages.synthetic import DEFAULT_PAGES, MAX_PAGES, synthetic_records

__all__ = ["FORMS", "Record", "draw_pages", "open_source", "select", "source_name"]

FORMS = "a folder of images, a JSONL or PDF file, hf:DATASET or synthetic[:N]"


def draw_pages(
    spec: str,
    task: str | None,
    num_samples: int | None,
    seed: int,
    *,
    keep_duplicates: bool,
    say: Callable[[str], None],
) -> list[Record]:
    """The records of a source that a run uses, those without a question asked that of `task`; see `select`."""
    return select(with_task(open_source(spec), task), num_samples, seed, keep_duplicates=keep_duplicates, say=say)


def open_source(spec: str) -> list[Record]:
    """List the pages of a source, always in the same order; images are read only when a record is used.

    spec: one of these, or several joined by commas.

    - `pages/`: a folder of images and PDF files, searched in depth, sorted by relative path; hidden files and folders
      are left out, links to folders not followed; `page.txt` beside `page.png` is its transcript.
    - `data.jsonl`: rows of `{"img_path": "page.png", "question": "...", "answer": "..."}`, or chats in the OpenAI or
      Hugging Face form, with the images beside the file.
    - `scan.pdf`: its pages, rendered; they have no transcripts.
    - `hf:OWNER/NAME:train?image=page&text=transcript`: a Hugging Face dataset of the hub, or `hf:FOLDER` on the disk;
      see `hyocr_core.pages.hf_dataset`.
    - `synthetic:64`: rendered text pages. A folder whose name is `synthetic` is given as `./synthetic`.
    - `forms.jsonl,synthetic:32,pages/`: all pages of all of them. A comma in the path of a file or folder that exists
      is part of it.

    Raises CalibrationError naming the source, and the file and line where there is one; BadInputError for a library
    that is not installed.
    """
    parts = _split(spec)
    records: list[Record] = []
    names: set[str] = set()
    for place, part in enumerate(parts, start=1):
        found = _open_one(part)
        if not names.isdisjoint(record.name for record in found):
            found = [replace(record, name=f"{record.name} (source {place})") for record in found]
        names.update(record.name for record in found)
        records += found
    return records


def source_name(spec: str) -> str:
    """The source as a report names it: without local paths."""
    return ",".join(_name_one(part) for part in _split(spec))


def select(
    records: Sequence[Record],
    num_samples: int | None,
    seed: int,
    *,
    keep_duplicates: bool = False,
    say: Callable[[str], None] | None = None,
) -> list[Record]:
    """Draw `num_samples` records without replacement, in their original order; all of them if None or too few.

    A page whose texts are those of a page already drawn, and whose image is the same, or the same but scaled or
    compressed in another way, is left out and another drawn for it, unless keep_duplicates. `say` is told how many
    were left out. To tell, every image drawn is read.
    """
    if num_samples is not None and num_samples < 1:
        raise CalibrationError(f"{num_samples} samples asked for; ask for at least 1")
    wanted = len(records) if num_samples is None else min(num_samples, len(records))
    distinct = Distinct()
    chosen: list[int] = []
    for index in _draw(len(records), wanted, seed):
        if len(chosen) == wanted:
            break
        if keep_duplicates or distinct.take(records[index]):
            chosen.append(index)
    if say is not None and distinct.same + distinct.near:
        say(f"left out {distinct.same} duplicates and {distinct.near} near ones (--keep-duplicates keeps them)")
    return [records[index] for index in sorted(chosen)]


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
    path = Path(hf_dataset.folder_of(spec) if hf_dataset.is_dataset(spec) else spec)
    try:
        return path.expanduser().exists()
    except OSError:  # such as a name longer than the file system allows
        return False


def _open_one(spec: str) -> list[Record]:
    kind, colon, count = spec.partition(":")
    if kind == "synthetic":
        return synthetic_records(_pages(spec, count) if colon else DEFAULT_PAGES)
    if hf_dataset.is_dataset(spec):
        return hf_dataset.read_dataset(spec)
    path = Path(spec).expanduser()
    if spec and path.is_dir():
        return read_folder(path)
    if not path.is_file():
        raise CalibrationError(f"{spec or 'empty source'}: no such file or folder; give {FORMS}")
    if path.suffix.lower() in SUFFIXES:
        raise CalibrationError(f"{spec}: is a single image; give {FORMS}")
    if path.suffix.lower() == pdf.SUFFIX:
        return pdf.read_pdf(path, path.name)
    return read_jsonl(path)


def _name_one(spec: str) -> str:
    if spec.partition(":")[0] == "synthetic":
        return spec
    if hf_dataset.is_dataset(spec):
        return hf_dataset.name_of(spec)
    return Path(spec).expanduser().resolve().name


def _pages(spec: str, count: str) -> int:
    pages = int(count) if count.isascii() and count.isdigit() and len(count) < 10 else 0
    if not 1 <= pages <= MAX_PAGES:
        raise CalibrationError(f"{spec}: synthetic:N takes a number of pages from 1 to {MAX_PAGES}")
    return pages
