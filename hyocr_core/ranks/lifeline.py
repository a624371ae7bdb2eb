"""A connection of every rank to the first: a death is known at once, and what a rank makes arrives as it is made.

The kernel closes the connections of a process however it ends, so that nothing has to be waited for or guessed.
"""

from __future__ import annotations

import json
import os
import secrets
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener, wait
from queue import SimpleQueue
from threading import Event, Lock, Thread
from typing import Any


@dataclass(frozen=True)
class End:
    """Why all ranks are to end. code: to exit with. text: the line that says it; empty if it is said already."""

    code: int
    text: str


class Lifeline:
    """Of one rank. ended: called once, in a thread of its own, when another rank ends all; `end` says why."""

    def __init__(self, connections: Mapping[int, Connection], names: Mapping[int, str], rank: int) -> None:
        """connections: to each other rank that this one speaks with. names: of these, for people."""
        self._connections = dict(connections)
        self._names = dict(names)
        self._rank = rank
        self._sending = Lock()
        self._over = False
        self.posts: SimpleQueue[Any] = SimpleQueue()
        self.end: End | None = None
        self.known = Event()

    def watch(self, ended: Callable[[], None]) -> None:
        """Begin to listen."""
        Thread(target=self._listen, args=[ended], daemon=True, name="hyocr-ranks").start()

    def post(self, item: Any) -> None:
        """Send the first rank something that JSON can say; it finds it in `posts`."""
        self._send({"post": item})

    def fail(self, end: End) -> None:
        """Tell the first rank that this one has failed."""
        self._send({"end": [end.code, end.text]})

    def close(self, code: int | None) -> None:
        """Leave; code: what all are to exit with, None if the work is done."""
        self._over = True
        self._send({"over": True} if code is None else {"end": [code, ""]})

    def _send(self, message: dict[str, Any]) -> None:
        data = json.dumps(message).encode()
        with self._sending:
            for connection in self._connections.values():
                try:
                    connection.send_bytes(data)
                except OSError:
                    # Who listens learns of it.
                    continue

    def _listen(self, ended: Callable[[], None]) -> None:
        waiting = {connection: rank for rank, connection in self._connections.items()}
        while waiting:
            ready = wait(list(waiting))
            for connection in [each for each in waiting if each in ready]:
                message = self._received(connection, waiting[connection])
                if "post" in message:
                    self.posts.put(message["post"])
                    continue
                del waiting[connection]
                if "end" in message and self.end is None and not self._over:
                    self.end = End(*message["end"])
                    self.known.set()
                    ended()

    def _received(self, connection: Connection, rank: int) -> dict[str, Any]:
        try:
            message: dict[str, Any] = json.loads(connection.recv_bytes())
        except (OSError, EOFError):
            return {"end": [1, f"{self._names[rank]} died"]}
        return message


def open_lifelines(address: str, size: int, publish: Callable[[str, bytes], None]) -> dict[int, Connection]:
    """Wait for a connection from each other rank. publish: lets the others know how to reach this one."""
    key = secrets.token_bytes(32)
    with Listener((address, 0), backlog=size, authkey=key) as listener:
        port: int = listener.address[1]
        publish("hyocr/lifeline", json.dumps([port, key.hex()]).encode())
        found = {}
        for _ in range(size - 1):
            connection = listener.accept()
            found[int(connection.recv_bytes())] = connection
    return found


def reach_lifeline(address: str, rank: int, published: bytes) -> Connection:
    """Connect to the first rank."""
    port, key = json.loads(published)
    connection = Client((address, port), authkey=bytes.fromhex(key))
    connection.send_bytes(str(rank).encode())
    return connection


def own_name(rank: int) -> str:
    """What people call this process."""
    return f"rank {rank} (process {os.getpid()} on {socket.gethostname()})"
