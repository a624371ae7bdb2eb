"""What a process says of its own memory."""

from __future__ import annotations

import subprocess
import sys

GROWN = 400 * 10**6
MEASURE = "from hyocr_core.resources import peak_rss_bytes; print(peak_rss_bytes())"
PARENT = f"""
import subprocess, sys
held = bytearray({GROWN})
subprocess.run([sys.executable, "-c", {MEASURE!r}], check=True)
"""


def measured(code: str) -> int:
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def test_the_peak_is_what_was_held_even_after_it_was_freed() -> None:
    assert measured(f"held = bytearray({GROWN}); del held; {MEASURE}") > GROWN


def test_the_peak_is_not_that_of_the_process_that_started_this_one() -> None:
    assert measured(PARENT) < GROWN // 2
