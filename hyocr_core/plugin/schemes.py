"""Find, import and validate sources, and list their pages: entry points of the group `hyocr.sources`; no torch."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, ClassVar, TypeAlias
from urllib.parse import parse_qsl

from hyocr_core.contract.config import parse_config
from hyocr_core.contract.page_source import ENTRY_POINT_GROUP, Record, Source, SourceConfig
from hyocr_core.errors import BadInputError, CalibrationError, one_line
from hyocr_core.plugin import entry_points
from hyocr_core.plugin.classes import Loaded, load_class
from hyocr_core.plugin.entry_points import PluginEntry

if TYPE_CHECKING:
    from PIL.Image import Image

OWN = "hyocr-core"


@dataclass(frozen=True)
class SourceEntry(PluginEntry):
    """One entry point of the group `hyocr.sources`; its name is the scheme."""

    kind: ClassVar[str] = "source"
    group: ClassVar[str] = ENTRY_POINT_GROUP
    error: ClassVar[type[BadInputError]] = CalibrationError

    @property
    def own(self) -> bool:
        """Whether it is one of the core's, whose errors that are none of the user's are bugs."""
        return self.distribution == OWN


LoadedSource: TypeAlias = Loaded[SourceEntry, Source]
"""A source that keeps the contract, not yet opened."""


@dataclass(frozen=True)
class OpenSource:
    """A source, made from what the user wrote. spec: that, whole."""

    entry: SourceEntry
    source: Source
    spec: str

    def records(self) -> list[Record]:
        """List its pages; raises CalibrationError, also for what is no record, for no page and for twice the same."""
        with _telling(self.entry, self.spec):
            found = list(self.source.records())
            _check(found)
        return found if self.entry.own else [_guarded(record, self.entry) for record in found]

    @property
    def files(self) -> dict[str, str]:
        """What it made no page of, by name -> why; known once its pages are listed."""
        with _telling(self.entry, self.spec):
            return {str(name): str(why) for name, why in self.source.left_out.items()}

    @property
    def label(self) -> str:
        """The source as a report names it: without local paths."""
        with _telling(self.entry, self.spec):
            return f"{self.entry.name}:{self.source.label}"


def installed_sources() -> list[SourceEntry]:
    """List the sources of all installed distributions, by scheme; imports none of them."""
    return entry_points.installed(SourceEntry)


def load_source(selector: str) -> LoadedSource:
    """Import the one source that `selector`, `scheme` or `distribution:scheme`, picks and validate it.

    Raises CalibrationError: unknown, offered twice, fails to import, other API version, or the contract is not kept.
    """
    return load_class(SourceEntry, selector, Source, "Source", SourceConfig)


def open_scheme(spec: str) -> OpenSource | None:
    """Make the source of `SCHEME:PLACE?key=value&key=value`; None if no installed source has this scheme.

    Raises CalibrationError as `load_source`, and for an option that is wrong.
    """
    scheme, colon, rest = spec.partition(":")
    if not colon or scheme not in {entry.name for entry in installed_sources()}:
        return None
    loaded = load_source(scheme)
    place, _, query = rest.partition("?")
    with _telling(loaded.entry, spec):
        config = parse_config(loaded.cls.config_class, dict(parse_qsl(query, keep_blank_values=True)), "after the ?")
        return OpenSource(loaded.entry, loaded.cls(place, config), spec)


@contextmanager
def _telling(entry: SourceEntry, spec: str) -> Iterator[None]:
    """Name the source in front of every error that the body raises for the user, or that is another author's."""
    who = spec if entry.own else f"{entry}: {spec}"
    try:
        with redirect_stdout(sys.stderr):
            yield
    except BadInputError as error:
        raise CalibrationError(f"{who}: {error}") from error
    except (Exception, SystemExit) as error:
        if entry.own:
            raise
        raise CalibrationError(f"{who}: {one_line(error, named=True)}") from error


def _check(found: list[Record]) -> None:
    if not found:
        raise CalibrationError("it has no page")
    for record in found:
        if not isinstance(record, Record):
            raise CalibrationError(f"its records() gave a {type(record).__name__}, no hyocr_core.Record")
        for key, optional in (
            ("name", False),
            ("question", True),
            ("answer", True),
            ("system", True),
            ("checks", True),
        ):
            _check_text(key, getattr(record, key), optional=optional)
    name, count = Counter(record.name for record in found).most_common(1)[0]
    if count > 1:
        raise CalibrationError(f"{count} of its pages are named {name}")


def _check_text(key: str, value: object, *, optional: bool) -> None:
    if optional and value is None:
        return
    if not isinstance(value, str):
        raise CalibrationError(f"the {key} of a record is a {type(value).__name__}, no text")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise CalibrationError(f"the {key} of a record holds half a character (a lone surrogate)") from error


def _guarded(record: Record, entry: SourceEntry) -> Record:
    return replace(record, open_image=partial(_open, record, entry))


def _open(record: Record, entry: SourceEntry) -> Image:
    """The page's image; whatever is wrong with it costs this page and not the run."""
    from PIL.Image import Image

    try:
        image: object = record.open_image()
    except CalibrationError:
        raise
    except (Exception, SystemExit) as error:
        raise CalibrationError(f"{entry}: {one_line(error, named=True)}") from error
    if not (isinstance(image, Image) and image.mode == "RGB"):
        raise CalibrationError(f"{entry}: open_image gave no RGB image of Pillow, but {_kind(image)}")
    return image


def _kind(image: object) -> str:
    mode = getattr(image, "mode", None)
    return f"one of mode {mode}" if isinstance(mode, str) else f"a {type(image).__name__}"
