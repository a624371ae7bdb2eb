"""The metrics of blocks of text: what they say, whatever their order, and the order in which they are read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from rapidfuzz.distance import Levenshtein
from rapidfuzz.process import cdist

from hyocr_core.evaluation.parts.pairing import MOST, PARSING, PairingMetric, cheapest_pairs, moved
from hyocr_core.evaluation.scores.rates import normalize
from hyocr_core.wording import phrase

_TABLE = re.compile(r"<table\b.*?(?:</table>|\Z)", re.DOTALL | re.IGNORECASE)
_DISPLAYED = re.compile(r"\$\$.*?(?:\$\$|\Z)|\\\[.*?(?:\\\]|\Z)", re.DOTALL)
_MARK = re.compile(r"(?m)^[ \t]*(?:#{1,6}[ \t]|[-*+][ \t]|\d{1,9}[.)][ \t])")
_ALIKE = 0.5
"""The edit distance over the longer block up to which one is taken for the other in the order."""


def text_blocks(text: str) -> list[str]:
    """Paragraphs, headings and items of lists, without their marks; tables and displayed formulas are none.

    White space within is one space. Of more than MOST the last ones are one block together. What is left open, a table
    or a formula, goes on to the end of the text.
    """
    rest = _DISPLAYED.sub("\n\n", _TABLE.sub("\n\n", normalize(text)))
    blocks = [" ".join(block.split()) for block in re.split(r"\n[ \t]*(?=\n)", _MARK.sub("\n\n", rest))]
    blocks = [block for block in blocks if block]
    return blocks if len(blocks) <= MOST else [*blocks[: MOST - 1], " ".join(blocks[MOST - 1 :])]


def paired_blocks(expected: Sequence[str], found: Sequence[str]) -> list[tuple[int, int]]:
    """Which block was read as which, so that the fewest edits are left, among equal ones in their order.

    A block without a partner is an edit for each of its characters.
    """
    lengths = np.add.outer(list(map(len, expected)), list(map(len, found)))
    if not lengths.size:
        return []
    saved = cdist(expected, found, scorer=Levenshtein.distance, dtype=np.int64) - lengths
    places = moved(*saved.shape)
    return cheapest_pairs(saved * (places.max() * min(saved.shape) + 1.0) + places)


class TextBlocks(PairingMetric):
    """Character error rate of blocks of text after pairing them, so that their order is forgiven.

    Blocks are those of `text_blocks`. One that was not read, and one that is not there, is an error for each of its
    characters. A page without blocks does not count. Broken markup is a part of its block's text.
    """

    title: ClassVar[str] = phrase("text blocks (edit distance)")
    tasks: ClassVar[tuple[str, ...]] = (*PARSING, "structured_parse")

    def page(self, text: str, reference: str) -> float:
        """The edits, in code points."""
        expected, found = text_blocks(reference), text_blocks(text)
        if not expected:
            return 0.0
        pairs = paired_blocks(expected, found)
        alone = sum(map(len, (*expected, *found))) - sum(len(expected[i]) + len(found[j]) for i, j in pairs)
        return alone + sum(Levenshtein.distance(expected[i], found[j]) for i, j in pairs)

    def size(self, reference: str) -> float:
        return sum(map(len, text_blocks(reference)))


class ReadingOrder(PairingMetric):
    """Edit distance between the order of the blocks and that in which they were read, over their number, 0 to 1.

    Blocks are paired as for the text; those that share less than half of their text count as not read. One that was not
    read is an edit, one that is not there is none. A mean over the pages with two blocks or more. Broken markup is a
    part of its block's text.
    """

    title: ClassVar[str] = phrase("reading order (edit distance)")
    tasks: ClassVar[tuple[str, ...]] = (*PARSING, "structured_parse")

    def page(self, text: str, reference: str) -> float:
        expected, found = text_blocks(reference), text_blocks(text)
        if len(expected) < 2:
            return 0.0
        alike = {
            j: i
            for i, j in paired_blocks(expected, found)
            if Levenshtein.normalized_distance(expected[i], found[j]) <= _ALIKE
        }
        order = [alike[j] for j in sorted(alike)]
        return Levenshtein.distance(range(len(expected)), order) / len(expected)

    def size(self, reference: str) -> float:
        return float(len(text_blocks(reference)) > 1)
