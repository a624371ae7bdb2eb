"""The processes that torchrun has started: the only place that knows of torch.distributed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from threading import Timer
from types import FrameType
from typing import TypeVar

import torch
from torch import Tensor
from torch import distributed as dist
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous

from hyocr_core.errors import BadInputError, HyocrError, RunError, one_line
from hyocr_core.ranks.launch import Launch, say_last
from hyocr_core.ranks.lifeline import End, Lifeline, open_lifelines, own_name, reach_lifeline
from hyocr_core.ranks.ranks import Ranks

Item = TypeVar("Item")

WAIT = timedelta(days=7)
"""For another rank, at most: that one has died is known otherwise."""
MEET = timedelta(minutes=5)
"""For all ranks to begin."""
OWN_WORD = 2.0
"""Seconds in which a rank may end by itself, from what it sees of the same trouble, before it is ended."""
LAST_WORD = 8.0
"""Seconds after which a rank that is to end, and is still in some long operation, is ended without ceremony."""

_RULES = {"sum": dist.ReduceOp.SUM, "max": dist.ReduceOp.MAX}


class EndedElsewhere(BaseException):
    """Another rank has ended all; no `except Exception` is to hold it up."""


class Torchrun(Ranks):
    """One of the processes of a launch that have found each other."""

    def __init__(self, where: Launch, lifeline: Lifeline, store: Store) -> None:
        self.rank, self.size = where.rank, where.size
        self.place, self.local_size = where.local_rank, where.local_size
        self._where = where
        self._lifeline = lifeline
        self._store = store
        self._deals = 0

    def exchange(self, payload: bytes) -> list[bytes]:
        sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.size)]
        dist.all_gather(sizes, torch.tensor([len(payload)]))
        return [self._from(rank, int(length), payload) for rank, length in enumerate(sizes)]

    def _from(self, rank: int, length: int, payload: bytes) -> bytes:
        if length == 0:
            return b""
        mine = rank == self.rank
        data = (
            torch.frombuffer(bytearray(payload), dtype=torch.uint8) if mine else torch.empty(length, dtype=torch.uint8)
        )
        dist.broadcast(data, rank)
        return payload if mine else data.numpy().tobytes()

    def reduce(self, tensor: Tensor, rule: str) -> Tensor:
        host = tensor.detach().cpu().contiguous()
        dist.all_reduce(host, _RULES[rule])
        return host.to(tensor.device)

    def deal(self, count: int) -> Iterator[int]:
        self._deals += 1
        key = f"hyocr/deal/{self._deals}"
        while (number := self._store.add(key, 1) - 1) < count:
            yield number

    def collected(self, items: Iterable[Item]) -> Iterator[Item]:
        if not self.first:
            for item in items:
                self._lifeline.post([item])
            # That was all.
            self._lifeline.post([])
            return
        waiting, posts = self.size - 1, self._lifeline.posts
        for item in items:
            yield item
            while not posts.empty():
                found = posts.get()
                yield from found
                waiting -= not found
        while waiting:
            found = posts.get()
            yield from found
            waiting -= not found

    @contextmanager
    def working(self, ranks: int) -> Iterator[None]:
        if not self._where.one_machine or ranks >= self.size:
            yield
            return
        threads = torch.get_num_threads()
        torch.set_num_threads(threads * self.size // ranks)
        try:
            yield
        finally:
            torch.set_num_threads(threads)


@contextmanager
def joined(where: Launch) -> Iterator[Ranks]:
    """This process among those that torchrun started with it; an error in the body ends all of them.

    Only the first rank raises what went wrong anywhere; the others exit with the same code without a word.
    """
    lifeline, store = _meet(where)
    before = signal.signal(signal.SIGTERM, _ended)
    lifeline.watch(lambda: _interrupt(where, lifeline))
    try:
        yield Torchrun(where, lifeline, store)
    except BaseException as error:
        # torchrun ends all when it sees one end, and what went wrong is still to be said.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        _leave(where, lifeline, error)
        raise
    lifeline.close(None)
    dist.destroy_process_group()
    signal.signal(signal.SIGTERM, before)


def _meet(where: Launch) -> tuple[Lifeline, Store]:
    if where.one_machine:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo0" if sys.platform == "darwin" else "lo")
    torch.set_num_threads(_threads(where))
    address = os.environ["MASTER_ADDR"]
    try:
        store, _, _ = next(rendezvous("env://", timeout=MEET))
        store.set(f"hyocr/name/{where.rank}", own_name(where.rank))
        if where.rank == 0:
            listening = "127.0.0.1" if where.one_machine else ""
            connections = open_lifelines(listening, where.size, store.set)
        else:
            reached = "127.0.0.1" if where.one_machine else address
            connections = {0: reach_lifeline(reached, where.rank, store.get("hyocr/lifeline"))}
        names = {rank: store.get(f"hyocr/name/{rank}").decode() for rank in connections}
        dist.init_process_group("gloo", store=store, rank=where.rank, world_size=where.size, timeout=WAIT)
    except (OSError, EOFError, RuntimeError) as error:
        raise RunError(f"rank {where.rank} does not find the others at {address}: {one_line(error)}") from error
    return Lifeline(connections, names, where.rank), store


def _threads(where: Launch) -> int:
    """Those of this process: what the user says, else its part of the cores; torchrun itself says 1."""
    said = os.environ.get("OMP_NUM_THREADS", "1")
    if said != "1":
        return torch.get_num_threads()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(cores // where.local_size, 1)


def _ended(_number: int, _frame: FrameType | None) -> None:
    raise EndedElsewhere


def _interrupt(where: Launch, lifeline: Lifeline) -> None:
    """Wake the main thread, wherever it is; end the process if it does not wake."""
    own_word = OWN_WORD if lifeline.end and lifeline.end.text else 0
    for timer in (Timer(own_word, os.kill, [os.getpid(), signal.SIGTERM]), Timer(LAST_WORD, _exit, [where, lifeline])):
        timer.daemon = True
        timer.start()


def _exit(where: Launch, lifeline: Lifeline) -> None:
    end = lifeline.end or End(1, "")
    _say(where, end)
    lifeline.close(end.code)
    os._exit(end.code)


def _say(where: Launch, end: End) -> None:
    """Say why all end, if nobody else does: of the others only the first, and the next one when that has died."""
    if end.text and where.rank <= 1:
        say_last(f"hyocr: error: {end.text}")


def _leave(where: Launch, lifeline: Lifeline, error: BaseException) -> None:
    """End all ranks; raises what the first one is to say, and SystemExit elsewhere."""
    ours = isinstance(error, HyocrError | KeyboardInterrupt)
    if not ours:
        # Torch says that a connection broke; who broke it is known in a moment.
        lifeline.known.wait(OWN_WORD)
    end, code = lifeline.end, 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
    if where.first:
        lifeline.close(code if ours or end is None else end.code)
        if not ours and end is not None:
            raise (BadInputError if end.code == BadInputError.exit_code else RunError)(end.text) from error
    elif end is None:
        lifeline.fail(End(code, f"rank {where.rank}: {one_line(error, named=not ours)}"))
        lifeline.known.wait(LAST_WORD)
    else:
        _say(where, end)
    if not where.first or isinstance(error, EndedElsewhere):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise SystemExit(code if lifeline.end is None else lifeline.end.code) from error
