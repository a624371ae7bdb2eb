"""What the documentation tells its readers to type: the commands and code blocks of a page, in order."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from tests.conftest import REPO

DOCS = REPO / "docs"
FENCE = re.compile(r"^```(\w+)([^\n]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INCLUDE = re.compile(r'^--8<-- "([^"]+)"$', re.MULTILINE)


@dataclass(frozen=True)
class Fence:
    """A fenced block. title: the file it is the text of; empty for a block without one."""

    language: str
    title: str
    text: str

    @property
    def commands(self) -> list[list[str]]:
        """The commands of a block in language sh, split into arguments; comments are left out."""
        found, pending = [], ""
        for line in self.text.splitlines():
            pending += line
            if line.endswith("\\"):
                pending = pending[:-1]
                continue
            try:
                arguments = shlex.split(pending, comments=True)
            except ValueError:  # a quotation that goes on in the next line
                pending += "\n"
                continue
            if arguments:
                found.append(arguments)
            pending = ""
        assert not pending, f"an unfinished command: {pending}"
        return found


def fences(page: Path) -> list[Fence]:
    """The fenced blocks of a page, with the files that they include."""
    text = page.read_text(encoding="utf-8")
    return [Fence(language, _title(rest), _included(body)) for language, rest, body in FENCE.findall(text)]


def commands(page: Path) -> list[list[str]]:
    """All commands of a page."""
    return [command for fence in fences(page) if fence.language == "sh" for command in fence.commands]


def headings(text: str) -> list[tuple[int, str]]:
    """Level and text of each heading outside of code."""
    outside = FENCE.sub("", text)
    return [(len(marks), title) for marks, title in re.findall(r"^(#+) (.+)$", outside, re.MULTILINE)]


def _title(rest: str) -> str:
    match = re.search(r'title="([^"]+)"', rest)
    return match[1] if match else ""


def _included(body: str) -> str:
    return INCLUDE.sub(lambda match: (REPO / match[1]).read_text(encoding="utf-8").rstrip("\n"), body)
