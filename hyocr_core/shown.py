"""How text is shown that may come from anywhere: in a line, on a page, in Markdown, in a spreadsheet.

All that hyocr prints goes through `message` or `visible`, so that a name, a plugin or a server can neither forge a line
nor steer the terminal.
"""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Sequence

LONGEST = 400
"""Characters of a message."""

_KEPT = "\n\t\u200c\u200d\u00ad"
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})
_MARKDOWN = re.compile(r"([\\`*_\[\]#|~$])")
_FORMULA = re.compile(r"[=+\-@\t\r\n'＝＋－＠]")


def visible(text: str) -> str:
    """`text` with every character that would not be seen written out, such as U+202E, which turns a line around.

    Newlines, tabs and what joins the letters of a script stay.
    """
    return "".join(character if _is_seen(character) else f"⟨U+{ord(character):04X}⟩" for character in text)


def _is_seen(character: str) -> bool:
    return character in _KEPT or unicodedata.category(character) not in _UNSEEN


def message(text: str, limit: int = LONGEST) -> str:
    """`text` as one line of at most `limit` characters, all of them seen; the middle of a longer one is cut out."""
    line = visible("".join(" " if _breaks(character) else character for character in text))
    if len(line) <= limit:
        return line
    end = (limit - 1) // 3
    return f"{line[: limit - 1 - end]}…{line[len(line) - end :]}"


def _breaks(character: str) -> bool:
    return character.isspace() and unicodedata.category(character) != "Zs"


def together(names: Sequence[str]) -> str:
    """Names of layers as one: `model.layers.0.self_attn.{q_proj,k_proj}` where they lie side by side."""
    parents = {name.rpartition(".")[0] for name in names}
    if len(names) == 1 or len(parents) > 1:
        return " ".join(names)
    return f"{parents.pop()}.{{{','.join(name.rpartition('.')[2] for name in names)}}}"


def markdown(text: str) -> str:
    """`text` as words of a line of Markdown, in a table too: neither markup nor HTML of its own."""
    return _MARKDOWN.sub(r"\\\1", html.escape(message(text), quote=False))


def code(text: str) -> str:
    """`text` as a piece of code in a line of Markdown."""
    return "`{}`".format(message(text).replace("`", "'"))


def spreadsheet(text: str) -> str:
    """`text` as a cell that no spreadsheet takes for a formula.

    One that begins like a formula, or with a `'`, has a `'` in front: take that off to have it back.
    """
    return f"'{visible(text)}" if _FORMULA.match(text) else visible(text)
