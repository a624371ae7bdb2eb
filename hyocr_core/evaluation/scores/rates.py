"""Error rates and their uncertainty; pure functions on strings and counts."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import ArrayLike
from rapidfuzz.distance import Levenshtein

RESAMPLES = 10_000
_CHUNK = 1 << 20  # indices drawn at once: bounds the memory of a bootstrap over many pages
_ALIKE = 1e-9  # relative: rates that only rounding tells apart

# Han, kana, their punctuation and full-width forms: scripts that put no space between words, and one block of Unicode
# after the other. Hangul is not among them, Korean has spaces.
_UNSPACED = "\u3001-\u9fff\uf900-\ufaff\uff01-\uff9f\U00020000-\U000323af"
_WORD = re.compile(f"[{_UNSPACED}]|[^\\s{_UNSPACED}]+")


def normalize(text: str) -> str:
    """Text as it is compared: Unicode NFC, without trailing whitespace. Nothing else is forgiven."""
    return unicodedata.normalize("NFC", text).rstrip()


def edit_distances(references: Iterable[str], texts: Iterable[str]) -> list[int]:
    """Levenshtein distance of each pair after `normalize`, in code points."""
    pairs = zip(references, texts, strict=True)
    return [int(Levenshtein.distance(normalize(reference), normalize(text))) for reference, text in pairs]


def words(text: str) -> list[str]:
    """The words of a text: what stands between whitespace, punctuation included.

    Chinese and Japanese put no space between words: there each character is a word, as is usual for mixed texts, so
    that "第3页 of 10" has five. Thai, Lao, Khmer and Burmese are not split further: where they have no space a whole
    phrase is one word, and the character error rate says more.
    """
    return _WORD.findall(text)


def word_errors(references: Iterable[str], texts: Iterable[str]) -> list[int]:
    """Levenshtein distance of each pair after `normalize`, in `words`."""
    pairs = zip(references, texts, strict=True)
    return [int(Levenshtein.distance(words(normalize(reference)), words(normalize(text)))) for reference, text in pairs]


def micro_rate(errors: Sequence[float], sizes: Sequence[float]) -> float:
    """Sum of `errors` over sum of `sizes`, so that every character weighs the same; ValueError if that is 0."""
    total = sum(sizes)
    if total <= 0:
        raise ValueError("a rate needs sizes whose sum is above 0")
    return float(sum(errors) / total)


def unseen_share(samples: int, level: float = 0.95) -> float:
    """The largest share that may be otherwise where none of so many samples is: exact binomial, about 3 / samples."""
    return float(1 - (1 - level) ** (1 / samples))


def bootstrap_interval(
    errors: ArrayLike,
    sizes: ArrayLike,
    *,
    seed: int,
    level: float = 0.95,
    resamples: int = RESAMPLES,
    signed: bool = False,
    otherwise: float = 1.0,
) -> tuple[float, float]:
    """Percentile interval of `micro_rate` under resampling of the samples with replacement (Efron 1979).

    errors, sizes: (samples,). With the difference of two models' errors on the same samples as `errors` it is the
    paired interval of the difference of their rates; signed: it is such. Resamples whose sizes sum to 0 have no rate
    and are left out. Where all samples have the same rate, such as 0, resampling sees no spread: then as many samples
    as may have gone unseen (`unseen_share`) are taken to be off by `otherwise`, which is wholly.
    """
    numerators, denominators = np.asarray(errors, np.float64), np.asarray(sizes, np.float64)
    if numerators.ndim != 1 or numerators.shape != denominators.shape or denominators.sum() <= 0:
        raise ValueError("a bootstrap needs one error count and one size per sample, and sizes whose sum is above 0")
    samples = len(numerators)
    rng = np.random.default_rng(seed)
    rates = []
    rows = max(1, _CHUNK // samples)
    for start in range(0, resamples, rows):
        drawn = rng.integers(samples, size=(min(rows, resamples - start), samples))
        totals = denominators[drawn].sum(axis=1)
        rates.append(numerators[drawn].sum(axis=1)[totals > 0] / totals[totals > 0])
    drawn_rates = np.concatenate(rates)
    if np.ptp(drawn_rates) <= _ALIKE * np.abs(drawn_rates).max():
        unseen = otherwise * unseen_share(int(np.count_nonzero(denominators)), level)
        return _unvaried(float(drawn_rates[0]), unseen, signed)
    low, high = np.quantile(drawn_rates, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def erring_rate(errors: Iterable[float], sizes: Iterable[float]) -> float:
    """The mean rate of the samples that have errors, 1 at most; 1 if none has."""
    rates = [min(abs(error) / size, 1.0) for error, size in zip(errors, sizes, strict=True) if error and size]
    return sum(rates) / len(rates) if rates else 1.0


def _unvaried(rate: float, unseen: float, signed: bool) -> tuple[float, float]:
    """The rate, less and more what was not seen; a share stays one."""
    least, most = (-1.0 if signed else 0.0), 1.0
    return min(rate, max(rate - unseen, least)), max(rate, min(rate + unseen, most))
