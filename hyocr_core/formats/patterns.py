"""Regular expressions of a quantization_config, each with a limit of time: `(a+)+$` would take years. Imports no torch.

A pattern has to be one for Python's `re`, as runtimes use that; matched it is by `regex`, which can be stopped.
"""

from __future__ import annotations

import math
import re
import time
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import regex  # type: ignore[import-untyped]

from hyocr_core.errors import CheckpointError

SECONDS = 2.0
"""Of the processor, for one pattern and all names that it is held against; a sane one takes microseconds for each."""

LONGEST = 2000
"""Characters of a pattern."""

MOST_REPEATS = 1000
"""The numbers in braces, multiplied: so often `regex` writes out what stands before them."""

_REPEATS = re.compile(r"\{(\d*)(?:,(\d*))?\}")


@dataclass
class _Bounded:
    """left: seconds that matching it may still take."""

    compiled: Any
    left: float


def pattern_problem(pattern: str) -> str | None:
    """Why this is no regular expression to match names with; None if it is one."""
    if len(pattern) > LONGEST:
        return f"it has more than {LONGEST} characters"
    if math.prod(max(1, int(most or least or 1)) for least, most in _REPEATS.findall(pattern)) > MOST_REPEATS:
        return f"it repeats a part more than {MOST_REPEATS} times"
    try:
        re.compile(pattern)
        _bounded(pattern)
    except (re.error, regex.error, RecursionError, OverflowError) as error:
        return str(error)
    return None


@lru_cache(maxsize=1 << 16)
def begins(pattern: str, name: str) -> bool:
    """Whether a pattern matches at the start of a name, as `re.match` finds it.

    Raises CheckpointError for a pattern that takes too long.
    """
    bounded = _bounded(pattern)
    if bounded.left > 0:
        began = time.process_time()
        try:
            return bounded.compiled.match(name, timeout=bounded.left) is not None
        except TimeoutError:
            pass
        finally:
            bounded.left -= time.process_time() - began
    raise CheckpointError(
        f"config.json: quantization_config: the pattern {pattern!r} is not done with {name} after {SECONDS:g} s: "
        "write a simpler one"
    )


@lru_cache(maxsize=1 << 10)
def _bounded(pattern: str) -> _Bounded:
    return _Bounded(regex.compile(pattern), SECONDS)
