"""Disk, memory and time of a run: estimated before it starts, measured while it goes."""

from __future__ import annotations

import ctypes
import platform
import re
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import psutil

from hyocr_core._version import __version__
from hyocr_core.errors import BadInputError
from hyocr_core.outside.regular import read_text

CPU_INFO = Path("/proc/cpuinfo")
PROCESS_STATUS = Path("/proc/self/status")
GB = 10**9
RUNTIME_BYTES = 800 * 10**6
"""What Python, torch and transformers take before any weight is loaded, and what the allocator keeps of what was freed.

The first is 500 MB on Linux, the second differs from run to run: the same job took from 1.52 to 1.60 GB at its peak.
"""


def processor() -> tuple[str, frozenset[str]]:
    """Model and flags of the first processor, empty where Linux does not say; ARM has no model there."""
    try:
        text = read_text(CPU_INFO)
    except (OSError, UnicodeDecodeError):
        text = ""
    fields: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    return fields.get("model name", ""), frozenset((fields.get("flags") or fields.get("Features", "")).split())


def size(count: float) -> str:
    """Bytes as text, in decimal units."""
    for unit, scale, digits in (("GB", GB, 2), ("MB", 10**6, 1), ("kB", 10**3, 1)):
        if count >= scale:
            return f"{count / scale:.{digits}f} {unit}"
    return f"{count:.0f} bytes"


def peak_rss_bytes() -> int:
    """Return the most memory that this process had at once.

    Linux hands `ru_maxrss` down from the process that started this one, so a large parent would be reported here.
    """
    peak = re.search(r"^VmHWM:\s*(\d+) kB$", read_text(PROCESS_STATUS) if PROCESS_STATUS.exists() else "", re.MULTILINE)
    if peak:
        return int(peak[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def release_memory() -> None:
    """Give the system back what was freed, which glibc keeps: of a vision tower that is done with up to 0.9 GB."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)


def free_memory() -> int:
    """Return the bytes that the machine can give to new work."""
    return int(psutil.virtual_memory().available)


def check_memory(needed: int, advice: str) -> None:
    """Raise BadInputError when `needed` bytes are more than the machine has free."""
    free = free_memory()
    if needed > free:
        raise BadInputError(f"this run needs about {size(needed)} of memory, {size(free)} are free; {advice}")


@dataclass
class Stopwatch:
    """Seconds of wall time by phase; those of one inside another are the inner one's alone."""

    phases: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        start, known = time.perf_counter(), sum(self.phases.values())
        try:
            yield
        finally:
            inside = sum(self.phases.values()) - known
            self.phases[name] = self.phases.get(name, 0.0) + time.perf_counter() - start - inside


def versions() -> dict[str, str]:
    """The versions that a result depends on."""
    packages = ("torch", "transformers", "safetensors", "pillow")
    return {"hyocr-core": __version__, "python": platform.python_version()} | {p: version(p) for p in packages}
