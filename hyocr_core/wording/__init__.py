"""What people read in their language: English stands in the code, other languages in the catalogues of `locale`.

Whoever writes a page says `with speaking("zh"):`; below it `tr` answers in Chinese, and elsewhere in English. Numbers,
names and what others have written stay as they are. `tools/catalogue.py` gathers what there is to translate.
"""

from __future__ import annotations

import gettext
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Literal, TypeVar, get_args

Language = Literal["en", "zh"]
LANGUAGES: tuple[Language, ...] = get_args(Language)
Text = TypeVar("Text", bound=str)

LOCALE = Path(__file__).with_name("locale")
DOMAIN = "hyocr"

_spoken: ContextVar[Language] = ContextVar("spoken", default="en")


@contextmanager
def speaking(language: Language) -> Iterator[None]:
    """Let `tr` answer in this language within the block."""
    before = _spoken.set(language)
    try:
        yield
    finally:
        _spoken.reset(before)


def spoken() -> Language:
    """The language of what is being written."""
    return _spoken.get()


def tr(text: str, /, **values: object) -> str:
    """`text`, a literal or a `phrase`, in the language that is spoken, with `values` in the place of its {names}.

    What no catalogue knows, such as the words of a plugin, stays as it is.
    """
    said = _catalogue(spoken()).gettext(text)
    return said.format(**values) if values else said


def phrase(text: Text) -> Text:
    """`text` itself: it is translated where it is shown, by `tr`."""
    return text


def sentences(parts: Iterable[str]) -> str:
    """Each with a full stop, one after the other."""
    return "".join(tr("{sentence}. ", sentence=part) for part in parts).rstrip(" ")


def listed(parts: Iterable[str]) -> str:
    """One after the other with commas."""
    return tr(", ").join(parts)


@cache
def _catalogue(language: Language) -> gettext.NullTranslations:
    if language == "en":
        return gettext.NullTranslations()
    return gettext.translation(DOMAIN, LOCALE, [language])
