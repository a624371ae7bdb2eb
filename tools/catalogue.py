"""The catalogues of translated texts: gathers what the code and the templates say, and builds what is read at run time.

python tools/catalogue.py     renews hyocr.po and hyocr.mo in hyocr_core/wording/locale; prints what has no translation
"""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_dir
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "hyocr_core"
FOLDER = PACKAGE / "wording/locale/zh/LC_MESSAGES"
PO, MO = FOLDER / "hyocr.po", FOLDER / "hyocr.mo"

KEYWORDS = {"tr": None, "phrase": None, "count": (2,)}
"""Functions of which the first text is translated; of `count` the noun."""
METHODS = [("report/**.j2", "jinja2"), ("**.py", "python")]
OPTIONS = {"report/**.j2": {"silent": "false"}}
_NAMES = re.compile(r"\{\w+\}")


def gathered() -> dict[str, list[str]]:
    """Every text that can be translated, with the files that it is in."""
    found: dict[str, list[str]] = {}
    for file, _line, text, _comments, _context in extract_from_dir(PACKAGE, METHODS, OPTIONS, KEYWORDS, ()):
        found.setdefault(str(text), []).append(file)
    return found


def catalogue() -> Catalog:
    """The Chinese catalogue as it is."""
    with PO.open("rb") as file:
        return read_po(file, locale="zh")


def built(texts: Catalog) -> bytes:
    """What is read at run time."""
    file = io.BytesIO()
    write_mo(file, texts)
    return file.getvalue()


def faults(texts: Catalog) -> Iterator[str]:
    """What is not translated, no longer said, or translated with other {names}."""
    said = gathered()
    known = {str(message.id): str(message.string or "") for message in texts if message.id}
    yield from (f"not translated: {text!r} ({', '.join(said[text])})" for text in said if not known.get(text))
    yield from (f"no longer said: {text!r}" for text in known.keys() - said.keys())
    for text in said.keys() & known.keys():
        ours, theirs = (sorted(set(_NAMES.findall(each))) for each in (text, known[text]))
        if known[text] and ours != theirs:
            yield f"{text!r} has {ours}, its translation {theirs}"


def renew() -> Catalog:
    """Take in what is new, drop what is no longer said; what is there stays."""
    old, said = catalogue(), sorted(gathered())
    texts = Catalog(
        locale="zh",
        project="hyocr",
        header_comment="# The Chinese of report page and model card.",
        creation_date=old.creation_date,
        revision_date=old.creation_date,
        last_translator="the hyocr authors",
        language_team="zh",
        msgid_bugs_address="https://github.com/hyocr/hyocr/issues",
        fuzzy=False,
    )
    for text in said:
        message = old.get(text)
        texts.add(text, message.string if message is not None and not message.fuzzy else "")
    with PO.open("wb") as file:
        write_po(file, texts, width=0)
    MO.write_bytes(built(catalogue()))
    return texts


def main() -> int:
    """Exit code 1 where something has no translation."""
    lines = list(faults(renew()))
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
