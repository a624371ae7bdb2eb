"""The metrics of extracted fields."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar, Literal

from hyocr_core.contract.metric import Metric
from hyocr_core.evaluation.parts.json_answer import fields, find_json, transcript_json, whole_json
from hyocr_core.evaluation.parts.pairing import f1
from hyocr_core.wording import phrase


class FieldF1(Metric):
    """F1 of the fields of JSON, each a value and the keys that lead to it; a mean over the pages.

    A value is right if it is the same text but for white space; the order of keys and of items does not matter. A page
    whose transcript does not begin as JSON does not count. JSON in a code fence or among words counts. What is cut off,
    or lacks a comma, scores by the fields before; what is broken otherwise has no field. The cost is bounded: at most
    10,000 values of an answer are looked at.
    """

    api_version: ClassVar[int] = 1
    title: ClassVar[str] = phrase("extracted fields (F1)")
    better: ClassVar[Literal["smaller", "larger"]] = "larger"
    unit: ClassVar[str] = "%"
    tasks: ClassVar[tuple[str, ...]] = ("extraction",)

    def page(self, text: str, reference: str) -> float:
        known = transcript_json(reference)
        if known is None:
            return 0.0
        expected, found = Counter(fields(known)), Counter(fields(find_json(text) or {}))
        return f1((expected & found).total(), expected.total(), found.total())

    def note(self, text: str, reference: str) -> str:  # noqa: ARG002
        return "" if whole_json(text) is not None else phrase("is no whole JSON")

    def size(self, reference: str) -> float:
        """1 if it is JSON. Raises MetricError for a transcript that begins as such and is none."""
        return float(transcript_json(reference) is not None)


class ValidJson(Metric):
    """Answers that are a JSON object or list and nothing else, but for a code fence.

    Whatever is broken or cut off is not valid, nor is JSON with words around it, NaN, or a nesting that none reads. A
    page whose transcript is no JSON does not count, one without a transcript does.
    """

    api_version: ClassVar[int] = 1
    title: ClassVar[str] = phrase("valid JSON")
    better: ClassVar[Literal["smaller", "larger"]] = "larger"
    unit: ClassVar[str] = "%"
    needs_reference: ClassVar[bool] = False
    tasks: ClassVar[tuple[str, ...]] = ("extraction", "spotting_json")

    def page(self, text: str, reference: str) -> float:
        return float(whole_json(text) is not None) * self.size(reference)

    def size(self, reference: str) -> float:
        return float(not reference.strip() or transcript_json(reference) is not None)
