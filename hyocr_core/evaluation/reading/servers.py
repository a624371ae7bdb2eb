"""Pages shared by several servers of one model; what one of them cannot do any more goes to the others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Condition
from typing import Any

from hyocr_core.contract.backend import PageAnswer, PageToRead
from hyocr_core.errors import BadInputError
from hyocr_core.evaluation.reading.chats import Chats
from hyocr_core.evaluation.reading.parallel import as_done
from hyocr_core.runtimes.endpoint import Completion, NoAnswerError


class Servers:
    """Servers that read pages together. at_once: pages that each of them reads at the same time."""

    def __init__(self, chats: Sequence[Chats], at_once: Sequence[int]) -> None:
        self._chats = chats
        self._room = dict(enumerate(at_once))
        self._most = sum(at_once)
        self._changed = Condition()
        self._lost: list[str] = []

    def read(self, pages: Sequence[PageToRead], say: Callable[[str], None]) -> Iterator[PageAnswer]:
        """As `Backend.read`; a server that fails is said."""
        warned: set[int] = set()
        asked = ((page, self._chats[0].body(page)) for page in pages)
        for page, server, found in as_done(self._ask, asked, self._most):
            while self._lost:
                say(self._lost.pop(0))
            if isinstance(found, str):
                yield PageAnswer(page.index, None, reason=found)
                continue
            warning = self._chats[server].warning(page, found)
            if warning is not None and server not in warned:
                warned.add(server)
                say(warning)
            yield PageAnswer(page.index, found.text, found.usage.completion_tokens, ended=found.ended)

    def _ask(self, asked: tuple[PageToRead, dict[str, Any]]) -> tuple[PageToRead, int, Completion | str]:
        """Ask one server after the other; the last one, and its answer, or why there is none."""
        page, body = asked
        last, reason = 0, ""
        tried: set[int] = set()
        while (server := self._take(tried)) is not None:
            chats, last = self._chats[server], server
            try:
                return page, server, chats.endpoint.chat(body | {"model": chats.served})
            except NoAnswerError as error:
                reason = f"{chats.endpoint.url}: {error}"
                tried.add(server)
                if error.bad_request:
                    break
                if len(self._chats) > 1:
                    self._drop_if_dead(server, reason)
            finally:
                self._give_back(server)
        return page, last, reason

    def _take(self, tried: set[int]) -> int | None:
        """A server that has room, of those not tried the one with the most; waits for one. None if all are tried."""
        with self._changed:
            while left := [server for server in self._room if server not in tried]:
                server = max(left, key=lambda each: self._room[each])
                if self._room[server] > 0:
                    self._room[server] -= 1
                    return server
                self._changed.wait()
        return None

    def _give_back(self, server: int) -> None:
        with self._changed:
            if server in self._room:
                self._room[server] += 1
            self._changed.notify_all()

    def _drop_if_dead(self, server: int, reason: str) -> None:
        """Ask a server that gave no answer nothing more, unless it still says what it serves, or is the last one."""
        try:
            self._chats[server].endpoint.models()
        except BadInputError:
            with self._changed:
                if server in self._room and len(self._room) > 1:
                    del self._room[server]
                    self._lost.append(f"warning: {reason}; the other servers read its pages")
                self._changed.notify_all()
