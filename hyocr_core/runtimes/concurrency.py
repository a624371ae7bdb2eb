"""Whether a runtime reads several pages at once as it reads them one by one, tried with a few drawn pages."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import product
from typing import TYPE_CHECKING

from rapidfuzz.distance import Levenshtein

from hyocr_core.contract.page_source import Record

if TYPE_CHECKING:
    from PIL.Image import Image

TEXTS = (
    "invoice 2026-04",
    "total 318.40 EUR",
    "Hamburg, 7 May",
    "delivery note 552",
    "page 3 of 12",
    "order no. 90817",
    "VAT 19 percent",
    "thank you very much",
)
SIZES = ((256, 32), (320, 32), (384, 32), (224, 32))
"""Width and height; of other shapes, so that a processor that scales to a least area keeps them apart too."""
MAX_NEW_TOKENS = 32
READ = 0.25
"""A page is read if no more of its text is wrong."""
SAME = 0.6
"""What a model guesses at, it guesses otherwise when sums are added in another order or a pixel differs by one (0.4 of
a text at most was seen); of pages that are mixed up, texts differ as unrelated ones do (0.8 and more was seen)."""
TRIALS = 4
"""At most. Of two guesses of which the invisible bits of a page choose one (0.7 of a text apart was seen), a trial met
both in 4 of 15 times, while a mix-up is one each time."""
ENOUGH = len(TEXTS) // 2
"""So many pages must be read, for them alone to be judged: what a model guesses at, it guesses otherwise at once."""
_MARKED = 64


@dataclass(frozen=True)
class Trial:
    """The drawn pages as they were read one by one, and all at once."""

    alone: Sequence[str]
    together: Sequence[str]

    @cached_property
    def judged(self) -> Sequence[tuple[str, str]]:
        """The texts, alone and together, of the pages that the model reads; of all, if it reads too few of them."""
        every = list(zip(self.alone, self.together, strict=True))
        read = [texts for written, texts in zip(TEXTS, every, strict=True) if _distance(written, texts[0]) <= READ]
        return read if len(read) >= ENOUGH else every

    @cached_property
    def changed(self) -> int:
        """How many pages have another text."""
        return sum(_distance(*texts) > SAME for texts in self.judged)

    @property
    def telling(self) -> bool:
        """Whether pages that are mixed up would be seen: a model that writes the same for most shows nothing."""
        return 2 * len({alone for alone, _ in self.judged}) > len(self.judged)

    @property
    def finding(self) -> str:
        """In words."""
        if self.changed:
            return f"{self.changed} of {len(self.judged)} trial pages read otherwise at once than one by one"
        if not self.telling:
            return "the trial pages read too much alike to tell whether it mixes them up"
        return f"{len(self.judged)} trial pages read the same at once as one by one"

    def nearest(self, other: Trial) -> Trial:
        """For each page what is most alike of all that both have read of it alone, and together."""
        texts = zip(self.alone, other.alone, self.together, other.together, strict=True)
        pairs = [min(product(read[:2], read[2:]), key=lambda pair: _distance(*pair)) for read in texts]
        return Trial(*zip(*pairs, strict=True))


def try_concurrency(read: Callable[[Sequence[Record]], Sequence[str]]) -> Trial:
    """Let a runtime read the trial pages twice, and again as long as it seems to mix them up.

    read: reads pages, all at the same time, and gives their texts.
    """
    trial = _try_once(read)
    for _ in range(TRIALS - 1):
        if not trial.changed:
            break
        trial = trial.nearest(_try_once(read))
    return trial


def _try_once(read: Callable[[Sequence[Record]], Sequence[str]]) -> Trial:
    alone = [read([page])[0] for page in trial_pages()]
    return Trial(alone, read(trial_pages()))


def trial_pages() -> list[Record]:
    """One line of text each. Their pixels are others each time, if only just: a server may keep what it has read."""
    return [
        Record(f"trial page {number}", None, text, partial(draw_line, text, SIZES[number % len(SIZES)]))
        for number, text in enumerate(TEXTS)
    ]


def draw_line(text: str, size: tuple[int, int]) -> Image:
    """One line of text, black on white, which random bits make another image without being seen."""
    from PIL import Image, ImageDraw, ImageFont

    page = Image.new("RGB", size, "white")
    ImageDraw.Draw(page).text((6, 5), text, font=ImageFont.load_default(18), fill="black")
    return unlike(page)


def unlike(image: Image) -> Image:
    """A copy, in RGB, that looks the same and is another image to whoever keeps what was read."""
    copy = image.convert("RGB") if image.mode != "RGB" else image.copy()
    bits = secrets.randbits(_MARKED)
    for column in range(min(_MARKED, copy.width)):
        red, green, blue = copy.getpixel((column, 0))  # type: ignore[misc]
        copy.putpixel((column, 0), (red, green, blue ^ (bits >> column & 1)))
    return copy


def _distance(left: str, right: str) -> float:
    return Levenshtein.normalized_distance(left, right)
