"""LaTeX formulas: where they stand in a text, and their tokens after what changes nothing is taken out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

_ENVIRONMENTS = "equation|align|gather|multline|eqnarray|displaymath|math"
_FORMULA = re.compile(
    r"\$\$(?P<dollars>.+?)(?:\$\$|\Z)"
    r"|\\\[(?P<brackets>.+?)(?:\\\]|\Z)"
    r"|\\\((?P<round>.+?)(?:\\\)|\n\s*\n|\Z)"
    rf"|\\begin\{{(?P<name>(?:{_ENVIRONMENTS})\*?)\}}(?P<environment>.+?)(?:\\end\{{(?P=name)\}}|\Z)"
    r"|(?<![\\$])\$(?=[^\s$])(?P<inline>(?:\\.|[^$\\\n])+?)(?<!\s)\$(?![\d$])",
    re.DOTALL,
)
"""A formula in its delimiters. What is left open ends where the text does; `\\(` with its paragraph."""
_COMMAND = re.compile(r"\\[A-Za-z]+")
_TOKEN = re.compile(r"\\[A-Za-z]+|\\.|[^\s\\]|\\", re.DOTALL)
_LABEL = re.compile(r"\\(?:label|tag)\*?\s*\{[^{}]*\}")

_SPACES = {r"\ ", r"\,", r"\;", r"\:", r"\!", r"\>", r"\quad", r"\qquad", r"\thinspace", "~"}
_SIZES = {r"\left", r"\right", r"\middle", r"\big", r"\Big", r"\bigg", r"\Bigg", r"\bigl", r"\bigr", r"\Bigl", r"\Bigr"}
_STYLES = {r"\displaystyle", r"\textstyle", r"\scriptstyle", r"\limits", r"\nolimits", r"\nonumber", r"\notag"}
_NOTHING = _SPACES | _SIZES | _STYLES
_SAME = {
    r"\le": r"\leq",
    r"\ge": r"\geq",
    r"\ne": r"\neq",
    r"\to": r"\rightarrow",
    r"\gets": r"\leftarrow",
    r"\dfrac": r"\frac",
    r"\tfrac": r"\frac",
    r"\lbrace": r"\{",
    r"\rbrace": r"\}",
    r"\lvert": "|",
    r"\rvert": "|",
    r"\vert": "|",
    r"\|": r"\Vert",
    r"\lVert": r"\Vert",
    r"\rVert": r"\Vert",
    r"\land": r"\wedge",
    r"\lor": r"\vee",
    r"\lnot": r"\neg",
    r"\ast": "*",
    r"\dots": r"\ldots",
    r"\cdots": r"\ldots",
    r"\text": r"\mathrm",
    r"\textrm": r"\mathrm",
    r"\rm": r"\mathrm",
    r"\bf": r"\mathbf",
    r"\operatorname": r"\mathrm",
}
"""Ways to write the same, or what a page does not tell apart -> one of them."""


@dataclass(frozen=True)
class Formula:
    """A formula, without its delimiters. opening: the one before it, empty for a text that is a formula as a whole.

    closed: whether the other stands behind it.
    """

    body: str
    opening: str = ""
    closed: bool = True


def delimited(text: str) -> list[Formula]:
    """The formulas of a text, in their order.

    These are `$$`, `$`, `\\[`, `\\(` and environments such as `equation`. A text that has none, and no paragraphs,
    but a command of LaTeX is one formula as a whole: so the model answers where it is asked for a formula alone.
    """
    found = [_formula(match) for match in _FORMULA.finditer(text)]
    if found:
        return [formula for formula in found if formula.body.strip()]
    alone = text.strip()
    return [Formula(alone)] if _COMMAND.search(alone) and not re.search(r"\n\s*\n", alone) else []


def find_formulas(text: str) -> list[str]:
    """The same, without their delimiters."""
    return [formula.body for formula in delimited(text)]


_ENDS = {"dollars": "$$", "brackets": r"\]", "round": r"\)", "inline": "$"}
"""What closes a formula of each kind but environments."""


def _formula(match: re.Match[str]) -> Formula:
    kind = match.lastgroup if match["environment"] is None else "environment"
    body = match[str(kind)]
    end = rf"\end{{{match['name']}}}" if kind == "environment" else _ENDS[str(kind)]
    start = match.start(str(kind)) - match.start()
    return Formula(body, match[0][:start], closed=match[0][start + len(body) :] == end)


def latex_words(formula: str) -> list[str]:
    """Its commands and characters, as they are, but for white space."""
    return _TOKEN.findall(formula)


def latex_tokens(formula: str) -> list[str]:
    """Its commands and characters, without spaces, sizes of brackets, styles, labels, and braces around one of them.

    Never raises: a brace that has no partner stays, as does a backslash at the end.
    """
    tokens = [_SAME.get(token, token) for token in latex_words(_LABEL.sub(" ", formula))]
    return _without_idle_braces([token for token in tokens if token not in _NOTHING])


def _without_idle_braces(tokens: Sequence[str]) -> list[str]:
    kept: list[str] = []
    opened: list[int] = []
    for part in tokens:
        kept.append(part)
        if part == "{":
            opened.append(len(kept) - 1)
        elif part == "}" and opened:
            start = opened.pop()
            if len(kept) - start == 3:
                kept[start:] = [kept[start + 1]]
    return kept
