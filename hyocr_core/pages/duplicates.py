"""Pages that a selection has already, by their pixels and texts; and pages that two selections share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.copies import Thumbnail, is_copy, thumbnail
from hyocr_core.pages.images import digest_image
from hyocr_core.pages.prompts import prompt_of, system_of

if TYPE_CHECKING:
    from PIL.Image import Image

_COMPARED = 4
"""Pages that are held against one pixel by pixel, those with the most similar thumbnails: forms that differ in one
number may be thousands."""

Texts = tuple[str | None, ...]


@dataclass(frozen=True)
class _Taken:
    record: Record
    thumbnail: Thumbnail


@dataclass
class Distinct:
    """The pages taken so far, and those left out, by name -> of which page each is a copy."""

    copies: dict[str, str] = field(default_factory=dict)
    _pixels: dict[tuple[Texts, str], str] = field(default_factory=dict)
    _taken: dict[Texts, list[_Taken]] = field(default_factory=dict)

    def take(self, record: Record) -> bool:
        """Whether the page is a new one. Pages with different texts are never duplicates of each other.

        A page whose image cannot be read is taken: whoever uses it reports why.
        """
        try:
            image = record.open_image()
        except CalibrationError:
            return True
        texts = (system_of(record), prompt_of(record), record.answer, record.checks)
        digest, small = digest_image(image), thumbnail(image)
        if (texts, digest) in self._pixels:
            self.copies[record.name] = f"has the same pixels as {self._pixels[texts, digest]}"
            return False
        taken = self._taken.setdefault(texts, [])
        original = next((other for other in _nearest(small, taken) if _is_copy(image, other)), None)
        if original is not None:
            self.copies[record.name] = f"is {original.name}, scaled or compressed in another way"
            return False
        self._pixels[texts, digest] = record.name
        taken.append(_Taken(record, small))
        return True


def _nearest(small: Thumbnail, taken: Iterable[_Taken]) -> Iterator[Record]:
    """The pages that may be the same, as far as thumbnails tell, the most similar first."""
    gaps = ((small.gap(other.thumbnail), place, other.record) for place, other in enumerate(taken))
    near = sorted((gap, place, record) for gap, place, record in gaps if gap is not None)
    yield from (record for _, _, record in near[:_COMPARED])


def _is_copy(image: Image, other: Record) -> bool:
    try:
        return is_copy(image, other.open_image())
    except CalibrationError:
        return False


def shared_pages(calibration: Iterable[str], evaluation: Iterable[str]) -> list[int]:
    """Which pages of an evaluation the calibration has seen: their places, by the digests of their pixels."""
    seen = set(calibration)
    return [place for place, digest in enumerate(evaluation) if digest in seen]
