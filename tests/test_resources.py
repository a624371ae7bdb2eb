"""What a process says of its own memory."""

from __future__ import annotations

import platform
import subprocess
import sys
import time

import pytest

from hyocr_core.resources import Stopwatch

GROWN = 400 * 10**6
MEASURE = "from hyocr_core.resources import peak_rss_bytes; print(peak_rss_bytes())"
PARENT = f"""
import subprocess, sys
held = bytearray({GROWN})
subprocess.run([sys.executable, "-c", {MEASURE!r}], check=True)
"""

RELEASED = """
import psutil
from hyocr_core.resources import release_memory
# Having freed such a block, glibc no longer maps smaller ones apart from all others.
held = [bytearray(30_000_000)]
held.clear()
held = [bytearray(2_000_000) for _ in range(200)]
above = bytearray(100_000)
held.clear()
process = psutil.Process()
before = process.memory_info().rss
release_memory()
print(before - process.memory_info().rss)
"""


def measured(code: str) -> int:
    return int(subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout)


def test_the_peak_is_what_was_held_even_after_it_was_freed() -> None:
    assert measured(f"held = bytearray({GROWN}); del held; {MEASURE}") > GROWN


def test_the_peak_is_not_that_of_the_process_that_started_this_one() -> None:
    assert measured(PARENT) < GROWN // 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps what was freed")
def test_what_was_freed_goes_back_to_the_system() -> None:
    assert measured(RELEASED) > GROWN // 2


def test_a_phase_inside_another_is_not_counted_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([0.0, 2.0, 5.0, 6.0, 10.0, 11.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    watch = Stopwatch()
    with watch.phase("prepare"), watch.phase("vision"):
        pass
    with watch.phase("vision"):
        pass
    assert watch.phases == {"prepare": 3.0, "vision": 4.0}
