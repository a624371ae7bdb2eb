"""How long work tells the outside where it is. The command line draws it; a library caller may pass its own."""

from __future__ import annotations

from typing import Protocol


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
