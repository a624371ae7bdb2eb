"""What a source is: a class that an entry point in the group `hyocr.sources` names. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, ClassVar

from hyocr_core.contract.config import FrozenModel

if TYPE_CHECKING:
    from PIL.Image import Image

ENTRY_POINT_GROUP = "hyocr.sources"


@dataclass(frozen=True)
class Record:
    """One page of a source, its image not yet read.

    name: what errors and reports show, such as `scans/page-3.png` or `data.jsonl:12`; no two of a source share one.
    question: the prompt; None takes the default one.
    answer: the exact transcript, if known.
    open_image: reads the page as RGB, as often as it is called; raises CalibrationError with the reason, without the
        record's name.
    system: the system message; None takes the default one, which is empty.
    checks: what is known of a page without a transcript, for a metric that says so (`Metric.compares`).
    """

    name: str
    question: str | None
    answer: str | None
    open_image: Callable[[], Image]
    system: str | None = None
    checks: str | None = None


class SourceConfig(FrozenModel):
    """Options of a source, written `?key=value&key=value`; its own derive from this, each with a description."""


class Source(ABC):
    """Lists the pages of a place that a user names: `SCHEME:PLACE?key=value`, where SCHEME is its entry point's name.

    Made whenever its pages, or its label alone, are asked for; so `__init__` reads nothing.
    Raises CalibrationError, with the reason alone, for a place or an option that cannot be used.

    api_version: the number of the contract it was written for, as a literal.
    config_class: its options.
    """

    api_version: ClassVar[int]
    config_class: ClassVar[type[SourceConfig]] = SourceConfig

    def __init__(self, place: str, config: Any) -> None:
        """place: what stands between the scheme's colon and the `?`. config: an instance of `config_class`."""
        self.place = place
        self.config = config

    @abstractmethod
    def records(self) -> Iterable[Record]:
        """List the pages, always in the same order; images are read only when a record is used.

        Raises CalibrationError for a place without a page, or one that cannot be read.
        """

    @property
    def left_out(self) -> Mapping[str, str]:
        """What `records` found in the place and made no page of, by name -> why; asked for after it, for the user."""
        return {}

    @property
    def label(self) -> str:
        """The place as reports name it, which may be published: only its last part, and no options."""
        return PurePath(self.place).name
