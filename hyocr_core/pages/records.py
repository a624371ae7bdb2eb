"""One page of a calibration or evaluation source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Record:
    """One page, its image not yet read.

    name: what errors and reports show, such as `scans/page-3.png` or `data.jsonl:12`.
    question: the prompt; None takes the default one.
    answer: the exact transcript, if known.
    open_image: reads the page as RGB; raises CalibrationError with the reason, without the record's name.
    system: the system message, if the record asks for one.
    """

    name: str
    question: str | None
    answer: str | None
    open_image: Callable[[], Image]
    system: str | None = None
