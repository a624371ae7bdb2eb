"""Pages that a selection has already, by their pixels and texts; and pages that two selections share."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError
from hyocr_core.pages.images import digest_image
from hyocr_core.pages.prompts import prompt_of, system_of

if TYPE_CHECKING:
    from PIL.Image import Image

_SIDE = 32  # cells of the grid that an image is reduced to, a side
_CONTRAST = 8  # grey levels between neighbours: less may be what a lossy format made of flat paper
_NEAR = 0.25  # of the edges of two near duplicates, at most this share is in only one of them
_SAME_SHAPE = 0.02  # relative difference of width / height between an image and a scaled copy

Texts = tuple[str | None, ...]


@dataclass(frozen=True)
class Look:
    """What an image looks like at a glance. edges: the difference hash, a bit for each cell and direction."""

    edges: int
    shape: float

    def near(self, other: Look) -> bool:
        """Whether both are the same page, scaled or compressed in another way. A blank page is near to none."""
        either = (self.edges | other.edges).bit_count()
        return (
            either > 0
            and abs(self.shape - other.shape) <= _SAME_SHAPE * self.shape
            and (self.edges ^ other.edges).bit_count() <= _NEAR * either
        )


def look_at(image: Image) -> Look:
    """Hash where the image becomes lighter or darker from left to right (dHash, with a threshold against noise)."""
    import numpy as np
    from PIL.Image import Resampling

    small = image.convert("L").resize((_SIDE + 1, _SIDE), Resampling.BOX)
    steps = np.diff(np.asarray(small).astype(np.int16), axis=1)
    bits = np.packbits(np.stack([steps > _CONTRAST, steps < -_CONTRAST]))
    return Look(int.from_bytes(bits.tobytes()), image.width / image.height)


@dataclass
class Distinct:
    """The pages taken so far, and how many were turned away because they are the same as, or near to, one of them."""

    same: int = 0
    near: int = 0
    _pixels: dict[Texts, set[str]] = field(default_factory=dict)
    _looks: dict[Texts, list[Look]] = field(default_factory=dict)

    def take(self, record: Record) -> bool:
        """Whether the page is a new one. Pages with different texts are never duplicates of each other.

        A page whose image cannot be read is taken: whoever uses it reports why.
        """
        try:
            image = record.open_image()
        except CalibrationError:
            return True
        texts = (system_of(record), prompt_of(record), record.answer)
        pixels, looks = self._pixels.setdefault(texts, set()), self._looks.setdefault(texts, [])
        digest, look = digest_image(image), look_at(image)
        if digest in pixels:
            self.same += 1
            return False
        if any(look.near(other) for other in looks):
            self.near += 1
            return False
        pixels.add(digest)
        looks.append(look)
        return True


def shared_pages(calibration: Iterable[str], evaluation: Iterable[str]) -> list[int]:
    """Which pages of an evaluation the calibration has seen: their places, by the digests of their pixels."""
    seen = set(calibration)
    return [place for place, digest in enumerate(evaluation) if digest in seen]
