"""Which pages to look at first. Imports no torch."""

from __future__ import annotations

from rapidfuzz.distance import Levenshtein

from hyocr_core.evaluation.scores.result import EvalResult, PageResult


def worst_pages(result: EvalResult, count: int = 10) -> list[int]:
    """The worst pages, at most `count`, as indices into `result.pages`; a page without any fault is not among them.

    Those come first with the most errors that the baseline does not make, then with the most errors, then with the
    least agreement with the baseline on the next token, then with the text that is farthest from the baseline's.
    """
    faults = {index: _fault(page) for index, page in enumerate(result.pages)}
    ranked = sorted(faults, key=lambda index: (faults[index], -index), reverse=True)
    return [index for index in ranked if any(value > 0 for value in faults[index])][:count]


def _fault(page: PageResult) -> tuple[float, ...]:
    """The larger the worse, the first number most of all; unknown is none."""
    errors, before = page.errors or 0, page.baseline_errors
    disagreement = 0.0
    if page.compared_tokens and page.agreeing_tokens is not None:
        disagreement = 1 - page.agreeing_tokens / page.compared_tokens
    other = page.text if page.baseline_text is None else page.baseline_text
    return errors - (errors if before is None else before), errors, disagreement, Levenshtein.distance(page.text, other)
