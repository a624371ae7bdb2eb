"""The source `hf`: a Hugging Face dataset, read by the `datasets` library: `hf:NAME[:SPLIT][?image=COL&text=COL]`.

NAME is a folder, written by `save_to_disk` or of files that `load_dataset` reads (Parquet, an image folder), or a
dataset of the hub, OWNER/NAME. SPLIT may be left out where there is only one. `image` names the column of the pages,
which is `image` otherwise; `text` that of the transcripts and `prompt` that of the questions, of which there are none
otherwise; of a list of texts in a row the first counts. `config` chooses a configuration, and `stream=N` takes the
first N rows without downloading the others.

    hf:scans/                                      every row of a folder with one split
    hf:scans/:test?text=transcript                 with transcripts to evaluate against
    hf:OWNER/NAME:train?image=page&text=markdown   of the hub, or of its cache
    hf:OWNER/NAME:train?config=en&stream=256       the first 256 rows of a large one

No code of a dataset is run, and nothing is unpickled: `datasets` 4 and later load data files only.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from hyocr_core.contract.page_source import Record, Source, SourceConfig
from hyocr_core.errors import BadInputError, CalibrationError, one_line
from hyocr_core.outside.home import expanded
from hyocr_core.outside.regular import check_folder
from hyocr_core.pages.images import load_image

if TYPE_CHECKING:
    from PIL.Image import Image

_MAX_STREAMED = 100_000


class HfConfig(SourceConfig):
    """Options of `hf`."""

    image: str = Field("image", min_length=1, description="column of the pages")
    text: str | None = Field(None, min_length=1, description="column of the transcripts; there are none otherwise")
    prompt: str | None = Field(None, min_length=1, description="column of the questions; there are none otherwise")
    config: str | None = Field(None, min_length=1, description="configuration of the dataset")
    stream: int | None = Field(
        None, ge=1, le=_MAX_STREAMED, description="take so many rows, the first, without downloading the others"
    )


class HfSource(Source):
    """A dataset of the hub, `OWNER/NAME[:SPLIT]`, or in a folder on the disk."""

    api_version: ClassVar[int] = 1
    config_class: ClassVar[type[SourceConfig]] = HfConfig

    def records(self) -> list[Record]:
        """List the rows as records `NAME:SPLIT:0`, ...; an image is read when its record is used.

        Raises CalibrationError for a folder, dataset, split or column that is not there, with those that are;
        BadInputError without `datasets`.
        """
        address = _parse(self.place, self.config)
        datasets = _library()
        table = _loaded(address, datasets) if address.options.stream is None else _streamed(address, datasets)
        return [_record(address, table, row) for row in range(table.rows)]

    @property
    def label(self) -> str:
        """The place as it was given, but of a folder only its name; and the options."""
        path = expanded(_folder_of(self.place))
        given = self.config.model_dump(exclude_unset=True)
        options = "&".join(f"{key}={value}" for key, value in given.items())
        shown = self.place.replace(_folder_of(self.place), path.resolve().name, 1) if path.is_dir() else self.place
        return f"{shown}?{options}" if options else shown


@dataclass(frozen=True)
class _Address:
    """name: a folder's absolute path, or an id on the hub. folder: None on the hub."""

    name: str
    folder: Path | None
    split: str | None
    options: HfConfig

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


def _folder_of(place: str) -> str:
    """The path in a place, if it is a folder: without the split."""
    name, _, split = place.rpartition(":")
    return name if name and not expanded(place).is_dir() and "/" not in split else place


def _parse(place: str, options: HfConfig) -> _Address:
    name = _folder_of(place)
    split = place.removeprefix(name).removeprefix(":") or None
    path = expanded(name)
    if name and path.is_dir():
        _check_files(path)
        return _Address(str(path.resolve()), path.resolve(), split, options)
    # One word would name a loader of the library, such as `csv`; a path that is wrong should not reach the hub.
    if name.count("/") != 1 or name.startswith(("/", ".", "~")) or name.endswith("/"):
        raise CalibrationError("no such folder; a dataset of the hub is named OWNER/NAME")
    return _Address(name, None, split, options)


def _check_files(folder: Path) -> None:
    """Raise CalibrationError for a pipe, a socket or a device, which the library would open and wait for."""
    try:
        for parent, _, _ in os.walk(folder):
            check_folder(Path(parent))
    except OSError as error:
        raise CalibrationError(f"{error.filename} cannot be read: {error.strerror}") from error


def _library() -> Any:
    try:
        import datasets  # type: ignore[import-untyped]
    except ImportError as error:
        raise BadInputError("needs the datasets library: pip install 'hyocr-core[datasets]'") from error
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
    rows = _library_call(lambda: list(islice(stream.decode(False), address.options.stream)))
    image, texts = _columns(address, list(rows[0]) if rows else [])
    _check_image(image, rows[0][image])
    columns = {name: [row[name] for row in rows] for name in texts}
    return _checked(_Table(split, columns, len(rows), lambda row: rows[row][image], ()))


def _from_disk(address: _Address, datasets: Any) -> tuple[str, Any]:
    """What `save_to_disk` wrote: one split, or a dictionary of them."""
    if address.options.config is not None:
        raise CalibrationError("config: a dataset written by save_to_disk has none")
    saved = _library_call(lambda: datasets.load_from_disk(address.name))
    splits = saved if isinstance(saved, datasets.DatasetDict) else {str(saved.split or "train"): saved}
    split = _choose(address, list(splits))
    return split, splits[split]


def _from_files(address: _Address, datasets: Any, *, streaming: bool) -> tuple[str, Any]:
    config = address.options.config
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
    image = address.options.image
    texts = [name for name in (address.options.text, address.options.prompt) if name is not None]
    for name in (image, *texts):
        if name not in columns:
            raise CalibrationError(f"no column {name!r}; there are: {', '.join(columns) or 'none, as it has no row'}")
    return image, list(dict.fromkeys(texts))


def _check_image(column: str, value: object) -> None:
    if not isinstance(value, Mapping | bytes | None):
        raise CalibrationError(f"column {column!r} holds no images ({type(value).__name__}); name another by ?image=")


def _checked(table: _Table) -> _Table:
    """The table, if its texts are texts; of a list of texts, such as answers that are all right, the first."""
    texts = {name: [_first(value) for value in values] for name, values in table.texts.items()}
    for name, values in texts.items():
        for row, value in enumerate(values):
            if not isinstance(value, str | None):
                raise CalibrationError(f"column {name!r}, row {row}: expected text, found {type(value).__name__}")
    return replace(table, texts=texts)


def _first(value: object) -> object:
    return next(iter(value), None) if isinstance(value, list) else value


def _record(address: _Address, table: _Table, row: int) -> Record:
    def text(column: str | None) -> str | None:
        value = None if column is None else table.texts[column][row]
        return None if value is None else str(value)

    name = f"{address.label}:{table.split}:{row}"
    return Record(name, text(address.options.prompt) or None, text(address.options.text), partial(_open, table, row))


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
