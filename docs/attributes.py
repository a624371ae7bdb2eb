"""Lets the contract show what a docstring says of each field: lines `name: meaning` become a list."""

from __future__ import annotations

import re
from typing import Any

import griffe

FIELD = re.compile(r"(?m)^(\w+): ")


def as_list(text: str) -> str:
    """Turn each paragraph that begins with `name: meaning` into a Markdown list, one item for each such line."""
    paragraphs = text.split("\n\n")
    return "\n\n".join(_items(paragraph) if FIELD.match(paragraph) else paragraph for paragraph in paragraphs)


def _items(paragraph: str) -> str:
    marked = FIELD.sub(lambda match: f"- `{match[1]}`: ", paragraph)
    return re.sub(r"(?m)^(?!- )", "  ", marked)


class Attributes(griffe.Extension):
    """Rewrites docstrings before they are rendered."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Called by griffe for every module, class, function and attribute."""
        if obj.docstring is not None:
            obj.docstring.value = as_list(obj.docstring.value)
