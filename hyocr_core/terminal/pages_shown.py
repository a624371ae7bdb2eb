"""Pages on the terminal, or as JSON, as they are read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rich.table import Table

from hyocr_core.contract.page_source import Record
from hyocr_core.evaluation.scores.numbers import count
from hyocr_core.evaluation.transcribe import Transcript
from hyocr_core.report.diff import Piece, diff
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.terminal.progress_bar import TerminalProgress
from hyocr_core.terminal.texts_beside import beside_table, in_one_text

Print = Callable[[str], None]


class PagesShown:
    """Shows nothing. read: their names; unread: name -> why. told: takes pieces of a text while it is written;
    None wants the whole only."""

    told: Print | None = None

    def __init__(self) -> None:
        self.read: list[str] = []
        self.unread: dict[str, str] = {}

    def page(self, page: Transcript) -> None:
        """A page has been read, or could not be."""
        if page.answers:
            self.read.append(page.record.name)
            self.show(page)
        else:
            self.unread[page.record.name] = page.reason
            self.show_unread(page)

    def begin(self, record: Record) -> None:
        """A page is about to be read."""

    def show(self, page: Transcript) -> None:
        """A page has been read."""

    def show_unread(self, page: Transcript) -> None:
        """A page could not be read."""

    def end(self) -> None:
        """All pages have been read, or as many as could be before something came between."""


class AsJson(PagesShown):
    """One object at the end."""

    def __init__(self, config: EvalConfig, progress: TerminalProgress, print_json: Callable[[Any], None]) -> None:
        super().__init__()
        self._progress = progress
        self._head = {"model": config.model, "beside": config.rival, "data": config.data}
        self._pages: list[dict[str, Any]] = []
        self._print_json = print_json

    def show(self, page: Transcript) -> None:
        own = page.answers["model"]
        row: dict[str, Any] = {"name": page.record.name, "question": page.record.question, "text": own.text}
        row |= {"tokens": own.tokens, "fault": page.faults.get("model")}
        if "baseline" in page.answers:
            other = page.texts["baseline"]
            row |= {"beside_text": other, "beside_fault": page.faults.get("baseline")}
            row |= {"differing_characters": differing(diff(other, own.text))}
        self._pages.append(row)

    def end(self) -> None:
        self._progress.close()
        if self.read or self.unread:
            self._print_json(self._head | {"pages": self._pages, "unread": self.unread})


class OnTerminal(PagesShown):
    """Texts by `printed`, names of pages and what is wrong with a text by `tell`."""

    def __init__(self, progress: TerminalProgress, printed: Print, tell: Print) -> None:
        super().__init__()
        self._progress, self._print, self._tell = progress, printed, tell
        self._apart = True

    def begin(self, record: Record) -> None:
        # A bar would be drawn over the text.
        self._progress.leave()
        if not self._apart:
            self._print("\n")
        self._apart = True
        self._tell(f"--- {record.name}")

    def page(self, page: Transcript) -> None:
        super().page(page)
        self._apart = not page.answers

    def show_unread(self, page: Transcript) -> None:
        self._tell(f"not read: {page.reason}")


class OneText(OnTerminal):
    """The text as it is; where it is streamed, piece by piece."""

    def __init__(self, progress: TerminalProgress, printed: Print, tell: Print, *, stream: bool) -> None:
        super().__init__(progress, printed, tell)
        self._streamed = ""
        self.told = self._stream if stream else None

    def _stream(self, piece: str) -> None:
        self._streamed += piece
        self._print(piece)

    def show(self, page: Transcript) -> None:
        text = page.texts["model"]
        # What a backend or the end of a loop gives at once, or takes back, is no piece.
        if not self._streamed:
            self._print(text)
        if not (self._streamed or text).endswith("\n"):
            self._print("\n")
        self._streamed = ""
        for fault in page.faults.values():
            self._tell(f"this text {fault}")


class Beside(OnTerminal):
    """Two texts; in columns where there is a table to print them, else in one."""

    def __init__(
        self,
        progress: TerminalProgress,
        printed: Print,
        tell: Print,
        names: tuple[str, str],
        table: Callable[[Table], None] | None,
    ) -> None:
        super().__init__(progress, printed, tell)
        self._names, self._table = names, table
        self._same = 0

    def show(self, page: Transcript) -> None:
        texts = page.texts
        pieces = diff(texts["baseline"], texts["model"])
        if self._table is not None:
            self._table(beside_table(*self._names, pieces))
        else:
            self._print(f"{in_one_text(pieces)}\n")
        for role, name in zip(("baseline", "model"), self._names, strict=True):
            if role in page.faults:
                self._tell(f"the text of {name} {page.faults[role]}")
        different = differing(pieces)
        self._same += not different
        self._tell(f"{count(different, 'character')} differ" if different else "the same text")

    def end(self) -> None:
        if len(self.read) > 1:
            self._tell(f"--- the same text on {self._same} of {count(len(self.read), 'page')}")


def differing(pieces: list[Piece]) -> int:
    """The characters that one text has and the other has not, or otherwise."""
    return sum(max(len(piece.old), len(piece.new)) for piece in pieces if piece.kind != "equal")
