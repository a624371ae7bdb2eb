"""Read pages from a Hugging Face dataset, by the `datasets` library: `hf:NAME[:SPLIT][?image=COL&text=COL&prompt=COL]`.

NAME is a folder, written by `save_to_disk` or of files that `load_dataset` reads (Parquet, an image folder), or a
dataset of the hub, OWNER/NAME. SPLIT may be left out where there is only one. `image` names the column of the pages,
which is `image` otherwise; `text` that of the transcripts and `prompt` that of the questions, of which there are none
otherwise. `config` chooses a configuration, and `stream=N` takes the first N rows without downloading the others.

    hf:scans/                                      every row of a folder with one split
    hf:scans/:test?text=transcript                 with transcripts to evaluate against
    hf:OWNER/NAME:train?image=page&text=markdown   of the hub, or of its cache
    hf:OWNER/NAME:train?config=en&stream=256       the first 256 rows of a large one

No code of a dataset is run, and nothing is unpickled: `datasets` 4 and later load data files only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from hyocr_core.errors import BadInputError, CalibrationError, one_line
from hyocr_core.pages.images import load_image
from hyocr_core.pages.records import Record

if TYPE_CHECKING:
    from PIL.Image import Image

_PREFIX = "hf:"
_OPTIONS = ("image", "text", "prompt", "config", "stream")
_MAX_STREAMED = 100_000


@dataclass(frozen=True)
class _Address:
    """name: a folder's absolute path, or an id on the hub. folder: None on the hub."""

    spec: str
    name: str
    folder: Path | None
    split: str | None
    options: Mapping[str, str]

    @property
    def label(self) -> str:
        """What reports show: no local path."""
        return self.folder.name if self.folder else self.name


@dataclass(frozen=True)
class _Table:
    """Rows of one split. image: the value of the image column of a row, not decoded. roots: where images may lie."""

    split: str
    texts: Mapping[str, Sequence[Any]]
    rows: int
    image: Callable[[int], Any]
    roots: Sequence[Path]


def is_dataset(spec: str) -> bool:
    return spec.startswith(_PREFIX)


def folder_of(spec: str) -> str:
    """The path of a source, if it is a folder: without prefix, split and options."""
    name, _, split = _body(spec).rpartition(":")
    return name if name and not Path(_body(spec)).expanduser().is_dir() and "/" not in split else _body(spec)


def name_of(spec: str) -> str:
    """The source as a report names it: without local paths."""
    path = Path(folder_of(spec)).expanduser()
    return spec.replace(folder_of(spec), path.resolve().name, 1) if path.is_dir() else spec


def read_dataset(spec: str) -> list[Record]:
    """List the rows of a dataset as records `NAME:SPLIT:0`, ...; an image is read when its record is used.

    Raises CalibrationError naming the source: for a folder, dataset, split or column that is not there, with those
    that are; BadInputError without `datasets`.
    """
    address = _parse(spec)
    datasets = _library(spec)
    try:
        table = _streamed(address, datasets) if "stream" in address.options else _loaded(address, datasets)
    except CalibrationError as error:
        raise CalibrationError(f"{spec}: {error}") from error
    return [_record(address, table, row) for row in range(table.rows)]


def _body(spec: str) -> str:
    return spec.removeprefix(_PREFIX).partition("?")[0]


def _parse(spec: str) -> _Address:
    options = dict(parse_qsl(spec.partition("?")[2], keep_blank_values=True))
    for key, value in options.items():
        if key not in _OPTIONS or not value:
            raise CalibrationError(f"{spec}: {key}={value}: after the ? come {', '.join(_OPTIONS)}, each with a value")
    count = options.get("stream", "1")
    if not (count.isascii() and count.isdigit() and len(count) < 10 and 1 <= int(count) <= _MAX_STREAMED):
        raise CalibrationError(f"{spec}: stream={count}: give a number of rows from 1 to {_MAX_STREAMED}")
    name = folder_of(spec)
    split = _body(spec).removeprefix(name).removeprefix(":") or None
    path = Path(name).expanduser()
    if name and path.is_dir():
        return _Address(spec, str(path.resolve()), path.resolve(), split, options)
    # One word would name a loader of the library, such as `csv`; a path that is wrong should not reach the hub.
    if name.count("/") != 1 or name.startswith(("/", ".", "~")) or name.endswith("/"):
        raise CalibrationError(f"{spec}: no such folder; a dataset of the hub is named OWNER/NAME")
    return _Address(spec, name, None, split, options)


def _library(spec: str) -> Any:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise BadInputError(f"{spec}: needs the datasets library: pip install 'hyocr-core[datasets]'") from error
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    return datasets


def _loaded(address: _Address, datasets: Any) -> _Table:
    """A table that is on the disk, where the library downloads one of the hub."""
    saved = address.folder and any((address.folder / name).is_file() for name in ("state.json", "dataset_dict.json"))
    split, rows = _from_disk(address, datasets) if saved else _from_files(address, datasets, streaming=False)
    image, texts = _columns(address, rows.column_names)
    if isinstance(rows.features[image], datasets.Image):
        # hyocr decodes images itself: only known formats, and no file that a row merely names.
        rows = rows.cast_column(image, datasets.Image(decode=False))
    images = rows.select_columns([image])
    _check_image(image, _library_call(lambda: images[0])[image])
    columns = rows.select_columns(texts).to_dict() if texts else {}
    roots = [Path(datasets.config.HF_CACHE_HOME), *([address.folder] if address.folder else [])]
    return _checked(_Table(split, columns, len(rows), lambda row: images[row][image], roots))


def _streamed(address: _Address, datasets: Any) -> _Table:
    """A table of the first rows, in memory."""
    split, stream = _from_files(address, datasets, streaming=True)
    rows = _library_call(lambda: list(islice(stream.decode(False), int(address.options["stream"]))))
    image, texts = _columns(address, list(rows[0]) if rows else [])
    _check_image(image, rows[0][image])
    columns = {name: [row[name] for row in rows] for name in texts}
    return _checked(_Table(split, columns, len(rows), lambda row: rows[row][image], ()))


def _from_disk(address: _Address, datasets: Any) -> tuple[str, Any]:
    """What `save_to_disk` wrote: one split, or a dictionary of them."""
    if "config" in address.options:
        raise CalibrationError("config: a dataset written by save_to_disk has none")
    saved = _library_call(lambda: datasets.load_from_disk(address.name))
    splits = saved if isinstance(saved, datasets.DatasetDict) else {str(saved.split or "train"): saved}
    split = _choose(address, list(splits))
    return split, splits[split]


def _from_files(address: _Address, datasets: Any, *, streaming: bool) -> tuple[str, Any]:
    config = address.options.get("config")
    splits = _library_call(lambda: datasets.get_dataset_split_names(address.name, config))
    split = _choose(address, splits)
    return split, _library_call(
        lambda: datasets.load_dataset(address.name, config, split=split, streaming=streaming),
    )


def _library_call(call: Callable[[], Any]) -> Any:
    try:
        return call()
    except Exception as error:  # what the library, the network and damaged files raise is no closed set
        raise CalibrationError(f"the datasets library cannot read it: {one_line(error, 300)}") from error


def _choose(address: _Address, splits: Sequence[str]) -> str:
    if address.split is None and len(splits) == 1:
        return splits[0]
    if address.split is not None and address.split in splits:
        return address.split
    asked = "name a split" if address.split is None else f"no split {address.split!r}"
    raise CalibrationError(f"{asked}; there are: {', '.join(splits)}")


def _columns(address: _Address, columns: Sequence[str]) -> tuple[str, list[str]]:
    """The image column, and those of texts."""
    image = address.options.get("image", "image")
    texts = [address.options[kind] for kind in ("text", "prompt") if kind in address.options]
    for name in (image, *texts):
        if name not in columns:
            raise CalibrationError(f"no column {name!r}; there are: {', '.join(columns) or 'none, as it has no row'}")
    return image, list(dict.fromkeys(texts))


def _check_image(column: str, value: object) -> None:
    if not isinstance(value, Mapping | bytes | None):
        raise CalibrationError(f"column {column!r} holds no images ({type(value).__name__}); name another by ?image=")


def _checked(table: _Table) -> _Table:
    """The table, if its texts are texts."""
    for name, values in table.texts.items():
        for row, value in enumerate(values):
            if not isinstance(value, str | None):
                raise CalibrationError(f"column {name!r}, row {row}: expected text, found {type(value).__name__}")
    return table


def _record(address: _Address, table: _Table, row: int) -> Record:
    def text(kind: str) -> str | None:
        value = table.texts[address.options[kind]][row] if kind in address.options else None
        return None if value is None else str(value)

    name = f"{address.label}:{table.split}:{row}"
    return Record(name, text("prompt") or None, text("text"), partial(_open, table, row))


def _open(table: _Table, row: int) -> Image:
    value = table.image(row)
    data = value.get("bytes") if isinstance(value, Mapping) else value
    if isinstance(data, bytes):
        return load_image(data)
    path = value.get("path") if isinstance(value, Mapping) else None
    if not isinstance(path, str):
        raise CalibrationError("its row holds no image")
    if not table.roots:
        raise CalibrationError("keeps its images in files of their own, which are not streamed; leave stream= out")
    file = Path(path).resolve()
    if not any(file.is_relative_to(root.resolve()) for root in table.roots):
        raise CalibrationError("its image lies outside the dataset")
    return load_image(file)
