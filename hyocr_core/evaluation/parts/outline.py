"""The metric of a document's outline: its headings and lists."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from hyocr_core.evaluation.parts.pairing import MOST, PARSING, PairingMetric, f1, library, most_pairs
from hyocr_core.evaluation.scores.rates import normalize
from hyocr_core.wording import phrase

_ALIKE = 0.5
_LISTS = {"bullet_list_open": "bullet", "ordered_list_open": "ordered"}
_ENDS = ("bullet_list_close", "ordered_list_close")

Entry = tuple[str, str]
"""What it is, such as `h2` for a heading or `bullet 1` for an item of a list in no other, and its text."""


def outline(text: str) -> list[Entry]:
    """The headings and items of lists of a Markdown text, in their order, as CommonMark has them.

    Never raises: whatever is no heading and no list is a paragraph to it. Lists deeper than 20 containers are text.
    """
    parser = library("markdown_it").MarkdownIt("commonmark").disable(["inline", "text_join"])
    entries: list[Entry] = []
    lists: list[str] = []
    kind = ""
    for token in parser.parse(normalize(text)):
        if token.type in _LISTS:
            lists.append(_LISTS[token.type])
        elif token.type in _ENDS:
            lists.pop()
        elif token.type == "heading_open":
            kind = token.tag
        elif token.type == "list_item_open":
            kind = f"{lists[-1]} {len(lists)}"
        elif token.type == "inline" and kind:
            entries.append((kind, " ".join(token.content.split())))
            kind = ""
    return entries


class OutlineF1(PairingMetric):
    """F1 of headings, by their level, and items of lists, by their kind and depth; a mean over the pages.

    One is right if its text is at least half that of one in the transcript; the pairs are as many as there can be at
    once, and what else is wrong with the text is for other metrics. A page whose transcript has neither does not count.
    Broken Markdown is what CommonMark takes it for, mostly a paragraph. The cost is bounded: of more than 1000 headings
    and items the others are wrong.
    """

    title: ClassVar[str] = phrase("headings and lists (F1)")
    better: ClassVar[Literal["smaller", "larger"]] = "larger"
    libraries: ClassVar[tuple[str, ...]] = ("markdown_it", "scipy.optimize")
    tasks: ClassVar[tuple[str, ...]] = PARSING

    def page(self, text: str, reference: str) -> float:
        expected, found = outline(reference), outline(text)
        if not expected:
            return 0.0
        return f1(_right(expected[:MOST], found[:MOST]), len(expected), len(found))

    def size(self, reference: str) -> float:
        return float(bool(outline(reference)))


def _right(expected: Sequence[Entry], found: Sequence[Entry]) -> int:
    texts = ([text for _, text in entries] for entries in (expected, found))
    far = cdist(*texts, scorer=Levenshtein.normalized_distance, dtype=np.float64)
    same = np.array([[kind == other for other, _ in found] for kind, _ in expected], dtype=bool).reshape(far.shape)
    return most_pairs(same & (far <= _ALIKE))
