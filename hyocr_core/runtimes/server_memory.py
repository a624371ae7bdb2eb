"""What a server holds, as others see it: the memory of its processes, and what of the GPU is theirs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Thread
from urllib.parse import urlsplit

import psutil

from hyocr_core.runtimes.endpoint import is_loopback

SECONDS_BETWEEN = 0.2
SECONDS_BETWEEN_GPU = 2.0
"""A look at the GPU starts a program."""
_SECONDS_TO_ANSWER = 10
_MIB = 2**20


@dataclass
class Held:
    """The most that was seen, in bytes; None where nothing was."""

    memory: int | None = None
    gpu: int | None = None

    def see(self, memory: int | None, gpu: int | None) -> None:
        """Note what is held now."""
        self.memory = _larger(self.memory, memory)
        self.gpu = _larger(self.gpu, gpu)


@contextmanager
def watching(processes: Sequence[int], held: Held) -> Iterator[None]:
    """Look at these processes, and those that they started, while the body runs; what was most goes into `held`."""
    ended = Event()
    watcher = Thread(target=_watch, args=(processes, held, ended), daemon=True, name="hyocr-memory")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def _watch(processes: Sequence[int], held: Held, ended: Event) -> None:
    between = round(SECONDS_BETWEEN_GPU / SECONDS_BETWEEN)
    looks, over = 0, False
    while not over:
        # The last look is at the end, so that a short body is seen too.
        over = ended.wait(SECONDS_BETWEEN)
        family = with_children(processes)
        held.see(resident_bytes(family), gpu_bytes(family) if over or looks % between == 0 else None)
        looks += 1


def with_children(processes: Sequence[int]) -> list[psutil.Process]:
    """These processes and all that they started, as far as they are there."""
    found: dict[int, psutil.Process] = {}
    for number in processes:
        with suppress(psutil.Error):
            process = psutil.Process(number)
            found |= {each.pid: each for each in (process, *process.children(recursive=True))}
    return list(found.values())


def resident_bytes(processes: Sequence[psutil.Process]) -> int | None:
    """Bytes of memory that they hold; None where there are none. What several share counts for each."""
    sizes = []
    for process in processes:
        with suppress(psutil.Error):
            sizes.append(int(process.memory_info().rss))
    return sum(sizes) if sizes else None


def gpu_bytes(processes: Sequence[psutil.Process]) -> int | None:
    """Bytes of GPU memory that are theirs, as `nvidia-smi` says; None where it is not there or does not say."""
    command = ["nvidia-smi", "--query-compute-apps=pid,used_memory", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_SECONDS_TO_ANSWER)
    except (OSError, subprocess.SubprocessError):
        return None
    numbers = {process.pid for process in processes}
    rows = (line.split(",") for line in done.stdout.splitlines() if "," in line)
    used = [int(size) for number, size in rows if size.strip().isdigit() and int(number) in numbers]
    return sum(used) * _MIB if used else None


def listening(url: str) -> list[int]:
    """The processes that wait for connections at a URL of this machine; none if it is elsewhere, or they are hidden."""
    if not is_loopback(url):
        return []
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    with suppress(psutil.Error):
        waiting = [each for each in psutil.net_connections("tcp") if each.status == psutil.CONN_LISTEN]
        numbers = {each.pid for each in waiting if each.laddr and each.laddr.port == port}
        return sorted(number for number in numbers if number is not None)
    return []


def _larger(one: int | None, other: int | None) -> int | None:
    return max((each for each in (one, other) if each is not None), default=None)
