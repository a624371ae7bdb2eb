"""How long work tells the outside where it is. The command line draws it; a library caller may pass its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer
from typing import Protocol

SILENT_SECONDS = 4
"""After which a server that does not answer is spoken of."""


class Progress(Protocol):
    """Told of every phase, and of every step inside one."""

    def start(self, phase: str, total: int) -> None:
        """A phase begins that has `total` steps; the one before it has ended."""
        ...

    def step(self, detail: str = "") -> None:
        """One step of the phase is done; `detail` names what is at work."""
        ...

    def detail(self, text: str) -> None:
        """Something smaller than a step begins."""
        ...

    def say(self, text: str) -> None:
        """A line the user should read, now and later."""
        ...


class Silent:
    """Tells nobody."""

    def start(self, phase: str, total: int) -> None: ...

    def step(self, detail: str = "") -> None: ...

    def detail(self, text: str) -> None: ...

    def say(self, text: str) -> None: ...


class Watcher(Protocol):
    """Shows what is done where no phase is: imports, questions to a hub, the search for copies."""

    def doing(self, text: str) -> None:
        """This is done from now on, until something else is said."""
        ...

    def say(self, text: str) -> None:
        """A line the user should read, now and later; may be called from another thread."""
        ...

    def clear(self) -> None:
        """Leave nothing of `doing` on the terminal."""
        ...


_watchers: list[Watcher] = []
"""The last one watches; a library caller has none."""


@contextmanager
def watched(watcher: Watcher) -> Iterator[None]:
    """Let `watcher` be told, in the place of whoever was before."""
    idle()
    _watchers.append(watcher)
    try:
        yield
    finally:
        watcher.clear()
        _watchers.remove(watcher)


def doing(text: str) -> None:
    """Tell what is done."""
    if _watchers:
        _watchers[-1].doing(text)


def idle() -> None:
    """Somebody else writes to the terminal from here on."""
    if _watchers:
        _watchers[-1].clear()


@contextmanager
def asking(server: str, advice: str) -> Iterator[None]:
    """While a server is asked: say so, and when it is silent for long, say that too, with what would help."""
    if not _watchers:
        yield
        return
    doing(f"asking {server}")
    text = f"{server} has not answered for {SILENT_SECONDS:g} seconds; {advice}"
    timer = Timer(SILENT_SECONDS, _watchers[-1].say, [text])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        idle()
