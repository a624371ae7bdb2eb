"""LaTeX formulas: where they stand in a text, and their tokens after what changes nothing is taken out."""

from __future__ import annotations

import re
from collections.abc import Sequence

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


def find_formulas(text: str) -> list[str]:
    """The formulas of a text, in their order, without their delimiters.

    These are `$$`, `$`, `\\[`, `\\(` and environments such as `equation`. A text that has none, and no paragraphs,
    but a command of LaTeX is one formula as a whole: so the model answers where it is asked for a formula alone.
    """
    found = ["".join(filter(None, match.group(*_BODIES))) for match in _FORMULA.finditer(text)]
    if found:
        return [formula for formula in found if formula.strip()]
    alone = text.strip()
    return [alone] if _COMMAND.search(alone) and not re.search(r"\n\s*\n", alone) else []


_BODIES = ("dollars", "brackets", "round", "environment", "inline")


def latex_tokens(formula: str) -> list[str]:
    """Its commands and characters, without spaces, sizes of brackets, styles, labels, and braces around one of them.

    Never raises: a brace that has no partner stays, as does a backslash at the end.
    """
    tokens = [_SAME.get(token, token) for token in _TOKEN.findall(_LABEL.sub(" ", formula))]
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
