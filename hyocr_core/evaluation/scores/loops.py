"""Repetition loops: where an answer is stopped, and what of it counts as a loop. Pure functions on strings.

The rules are those of HunyuanOCR's own clients: github.com/Tencent-Hunyuan/HunyuanOCR, inference/utils/output_utils.py.
"""

from __future__ import annotations

CLEANED_FROM = 2000
"""Characters of the shortest text that `clean_repeated_substrings` cuts (8000 in the model card of v1.0): shorter ones
may rightly end in a row of dots."""
CLEANED_REPEATS = 10

STOP_FROM = 4000
"""Characters after which `infer_stream` looks for a loop for the first time, and between two looks."""
STOP_STEP = 1000
STOP_REPEATS = 8
STOP_LONGEST = 256
"""Characters of the longest round that it looks for; one of whitespace alone is none."""
STOP_SPAN = STOP_REPEATS * STOP_LONGEST
"""Characters that a look needs to see, at the end of what is written."""


def repeats(text: str) -> bool:
    """Whether `infer_stream` stops an answer that ends in this text; more than STOP_SPAN characters change nothing."""
    return _stopped_round(text) > 0


def loop_stop(text: str) -> int | None:
    """Characters of an answer at its first look that finds a loop; None if none does.

    Looks are taken at fixed lengths, not where a stream happens to be cut into pieces, so that the same answer ends at
    the same place whoever wrote it.
    """
    return next((end for end in _looks(text) if repeats(text[end - STOP_SPAN : end])), None)


def ends_in_loop(text: str) -> bool:
    """Whether an answer ends in a loop: the clients' cleaner cuts it, or it ends where they stop it.

    text: as the model wrote it, trailing whitespace included, since that may be the loop. The cleaner cuts the same two
    or more characters CLEANED_REPEATS times or more.
    """
    return _round(text) > 0


def cut_loop(text: str) -> str:
    """The text with one round of the loop that it ends in; the same text if it ends in none."""
    length, end = _round(text), len(text)
    while length and text.endswith(text[-length:], 0, end - length):
        end -= length
    return text[:end]


def _round(text: str) -> int:
    """Characters of one round of the loop that a text ends in, the fewest that repeat; 0 if it ends in none."""
    return _cleaned_round(text) or (_stopped_round(text) if len(text) in _looks(text) else 0)


def _looks(text: str) -> range:
    return range(STOP_FROM, len(text) + 1, STOP_STEP)


def _cleaned_round(text: str) -> int:
    lengths = range(2, len(text) // CLEANED_REPEATS + 1) if len(text) >= CLEANED_FROM else range(0)
    return next((length for length in lengths if text.endswith(text[-length:] * CLEANED_REPEATS)), 0)


def _stopped_round(text: str) -> int:
    lengths = range(1, min(STOP_LONGEST, len(text) // STOP_REPEATS) + 1)
    found = (length for length in lengths if text.endswith(text[-length:] * STOP_REPEATS) and text[-length:].strip())
    return next(found, 0)
