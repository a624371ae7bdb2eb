"""Chinese pages and the English text that each was written from, by its SHA-256 in the last line.

python tools/chinese_pages.py               lists the pages that lag behind, with the command that shows what changed
python tools/chinese_pages.py --renew [PAGE ...]   notes the English text of today: once the Chinese says the same
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from collections.abc import Iterator
from pathlib import Path

REPO = Path(__file__).parents[1]
DOCS = REPO / "docs"
ENGLISH_ALONE = ("architecture.md",)
"""Pages for those who work on hyocr itself, as docs/decisions is: they write English."""

MARK = re.compile(r"\n<!-- English: ([0-9a-f]{16}) -->\n\Z")


def twins() -> Iterator[tuple[Path, Path]]:
    """Every English page that has to have a Chinese one, and that one, which may be missing."""
    yield REPO / "README.md", REPO / "README_zh.md"
    for page in sorted(DOCS.glob("*.md")):
        if page.name not in ENGLISH_ALONE:
            yield page, DOCS / "zh" / page.name


def digest(english: Path) -> str:
    """What the last line of the Chinese page names."""
    return hashlib.sha256(english.read_bytes()).hexdigest()[:16]


def is_current(english: Path, chinese: Path) -> bool:
    """Whether the Chinese page was written from this English text."""
    found = MARK.search(chinese.read_text(encoding="utf-8"))
    return found is not None and found[1] == digest(english)


def renew(english: Path, chinese: Path) -> None:
    """Note the English text of today."""
    text = MARK.sub("", chinese.read_text(encoding="utf-8")).rstrip("\n")
    chinese.write_text(f"{text}\n\n<!-- English: {digest(english)} -->\n", encoding="utf-8")


def lagging() -> list[str]:
    """A line for each Chinese page that is missing or older than its English one."""
    lines = []
    for english, chinese in twins():
        ours, theirs = english.relative_to(REPO), chinese.relative_to(REPO)
        if not chinese.is_file():
            lines.append(f"{theirs} is missing: {ours} in Chinese")
        elif not is_current(english, chinese):
            lines.append(f"{theirs} lags behind: git diff $(git log -1 --format=%H -- {theirs}) -- {ours}")
    return lines


def main() -> int:
    """Exit code 1 where a page lags behind."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--renew", nargs="*", type=Path, metavar="PAGE", help="Chinese pages; without one, all")
    asked = parser.parse_args().renew
    if asked is not None:
        chosen = {page.resolve() for page in asked}
        for english, chinese in twins():
            if chinese.is_file() and (not chosen or chinese in chosen):
                renew(english, chinese)
    lines = lagging()
    sys.stdout.writelines(f"{line}\n" for line in lines)
    return 1 if lines else 0


if __name__ == "__main__":
    sys.exit(main())
