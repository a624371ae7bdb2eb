"""The metrics that are part of every evaluation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from rapidfuzz.distance import Levenshtein

from hyocr_core.contract.metric import Metric, MetricConfig
from hyocr_core.evaluation.scores.loops import ends_in_loop
from hyocr_core.evaluation.scores.rates import normalize, words
from hyocr_core.wording import phrase


class CharacterErrorRate(Metric):
    """Edit distance in characters over characters of the references, after `normalize`."""

    api_version: ClassVar[int] = 1
    title: ClassVar[str] = phrase("character error rate")
    unit: ClassVar[str] = "%"

    def page(self, text: str, reference: str) -> float:
        """The edit distance, in code points."""
        return Levenshtein.distance(normalize(reference), normalize(text))

    def size(self, reference: str) -> float:
        return len(normalize(reference))


class WordErrorRate(Metric):
    """Edit distance in words over words of the references; a Chinese or Japanese character is a word."""

    api_version: ClassVar[int] = 1
    title: ClassVar[str] = phrase("word error rate")
    unit: ClassVar[str] = "%"

    def page(self, text: str, reference: str) -> float:
        """The edit distance, in words."""
        return Levenshtein.distance(words(normalize(reference)), words(normalize(text)))

    def size(self, reference: str) -> float:
        return len(words(normalize(reference)))


class EditDistance(Metric):
    """Mean over pages of the edit distance over the longer of reference and text, 0 to 1."""

    api_version: ClassVar[int] = 1
    title: ClassVar[str] = phrase("normalized edit distance")

    def page(self, text: str, reference: str) -> float:
        return Levenshtein.normalized_distance(normalize(reference), normalize(text))


class ExactMatch(Metric):
    """Fraction of pages read without any error."""

    api_version: ClassVar[int] = 1
    title: ClassVar[str] = phrase("pages without any error")
    better: ClassVar[Literal["smaller", "larger"]] = "larger"
    unit: ClassVar[str] = "%"

    def page(self, text: str, reference: str) -> float:
        return float(normalize(text) == normalize(reference))


class RepetitionLoops(Metric):
    """Pages that end in a repetition, as HunyuanOCR's own clients find them."""

    api_version: ClassVar[int] = 1
    title: ClassVar[str] = phrase("repetition loops")
    unit: ClassVar[str] = "pages"
    together: ClassVar[Literal["mean", "sum"]] = "sum"
    needs_reference: ClassVar[bool] = False

    def page(self, text: str, reference: str) -> float:  # noqa: ARG002
        return float(ends_in_loop(text))


BUILT_IN: Mapping[str, Metric] = {
    "cer": CharacterErrorRate(MetricConfig()),
    "wer": WordErrorRate(MetricConfig()),
    "edit-distance": EditDistance(MetricConfig()),
    "exact": ExactMatch(MetricConfig()),
    "loops": RepetitionLoops(MetricConfig()),
}
"""By the name of their entry point."""
