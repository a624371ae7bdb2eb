"""What torchrun says of this process. Importing this module imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from hyocr_core.ranks.ranks import ALONE, Ranks

RUN_ID = "TORCHELASTIC_RUN_ID"
"""What only torchrun sets; many a cluster has RANK and the like for processes that are strangers to each other."""


@dataclass(frozen=True)
class Launch:
    """This process among those that torchrun started. local: of the same machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int

    @property
    def one_machine(self) -> bool:
        return self.size == self.local_size

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.rank == 0


def launch() -> Launch | None:
    """What torchrun has set; None where it has not started this process, or no other one."""
    if RUN_ID not in os.environ:
        return None
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    found = Launch(*(int(os.environ[name]) for name in names))
    return found if found.size > 1 else None


@contextmanager
def together() -> Iterator[Ranks]:
    """This process among those that torchrun started with it, alone if it did not; see `torchrun.joined`."""
    where = launch()
    if where is None:
        yield ALONE
        return
    from hyocr_core.ranks.torchrun import joined

    with joined(where) as ranks:
        yield ranks


_stderr = 2
"""Where this process can still say something."""


def hush() -> None:
    """Let nothing that this process prints, or a library in it, be seen."""
    global _stderr
    _stderr = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


def say_last(text: str) -> None:
    """Write a line on the standard error that the process was started with."""
    os.write(_stderr, f"{text}\n".encode())
