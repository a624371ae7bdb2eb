"""What is broken in the LaTeX formulas of a text, for a note: they have a score all the same."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hyocr_core.evaluation.parts.latex import delimited, latex_words

_ARGUMENTS = {r"\frac": 2, r"\dfrac": 2, r"\tfrac": 2, r"\binom": 2, r"\sqrt": 1, "^": 1, "_": 1}
_SCRIPTS = {"^": "superscripts", "_": "subscripts"}
_NO_ARGUMENT = ("}", "^", "_", "&", r"\\", r"\right", r"\end")


def latex_faults(text: str) -> Iterator[str]:
    """What LaTeX would refuse, a few words each, in the order of the text; what else it refuses is not looked for."""
    for formula in delimited(text):
        if not formula.closed:
            yield f"a {formula.opening} is not closed"
        yield from _faults(latex_words(formula.body))


def _faults(words: Sequence[str]) -> Iterator[str]:
    ends, unbalanced = _braces(words)
    yield from unbalanced
    yield from _pairs(words)
    for place, word in enumerate(words):
        wanted = _ARGUMENTS.get(word)
        if word == "\\" and place == len(words) - 1:
            yield "a backslash ends it"
        if wanted is None:
            continue
        at: int | None = _after_option(words, place + 1) if word == r"\sqrt" else place + 1
        for _ in range(wanted):
            at = None if at is None else _after_argument(words, at, ends)
        if at is None:
            yield f"a {word} lacks an argument"
        elif word in _SCRIPTS and at < len(words) and words[at] == word:
            yield f"two {_SCRIPTS[word]} follow each other"


def _braces(words: Sequence[str]) -> tuple[dict[int, int], list[str]]:
    """Where the brace opened at a place is closed, and what is wrong with braces."""
    ends: dict[int, int] = {}
    opened: list[int] = []
    faults: list[str] = []
    for place, word in enumerate(words):
        if word == "{":
            opened.append(place)
        elif word == "}" and opened:
            ends[opened.pop()] = place
        elif word == "}":
            faults.append("a } closes nothing")
    return ends, [*faults, *["a { is not closed"] * len(opened)]


def _pairs(words: Sequence[str]) -> Iterator[str]:
    """What is wrong with sized brackets and environments."""
    depth = 0
    opened: list[str] = []
    for place, word in enumerate(words):
        if word in (r"\left", r"\right"):
            depth += 1 if word == r"\left" else -1
            if depth < 0:
                depth = 0
                yield r"a \right has no \left"
        elif word == r"\begin":
            opened.append(_name(words, place))
        elif word == r"\end":
            name = _name(words, place)
            if not opened or opened.pop() != name:
                yield rf"a \end{{{name}}} ends nothing"
    if depth:
        yield r"a \left has no \right"
    yield from (rf"a \begin{{{name}}} is not ended" for name in opened)


def _name(words: Sequence[str], place: int) -> str:
    """What stands in the braces after a word, cut short."""
    rest = words[place + 1 : place + 21]
    return "".join(rest[1 : rest.index("}")]) if rest[:1] == ["{"] and "}" in rest else ""


def _after_option(words: Sequence[str], at: int) -> int:
    """The place behind what stands in brackets at a place, if anything does, of 20 words at most."""
    rest = words[at : at + 20]
    return at + rest.index("]") + 1 if rest[:1] == ["["] and "]" in rest else at


def _after_argument(words: Sequence[str], at: int, ends: dict[int, int]) -> int | None:
    """The place behind the argument at a place; None if there is none."""
    if at >= len(words) or words[at] in _NO_ARGUMENT:
        return None
    return ends.get(at, len(words) - 1) + 1 if words[at] == "{" else at + 1
