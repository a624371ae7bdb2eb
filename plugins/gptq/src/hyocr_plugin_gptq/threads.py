"""How many threads small operations get."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run many small operations on one thread.

    Waking the others for each costs more than they save; on a busy machine, where each must wait to be scheduled, the
    search for the scales took 70 times as long with two threads as with one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
