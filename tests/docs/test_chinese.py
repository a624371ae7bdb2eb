"""The Chinese README and quick start say what the English ones say: same sections, commands, files and links."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.docs.pages import DOCS, FENCE, headings

TWINS = [
    pytest.param(REPO / "README.md", REPO / "README_zh.md", id="README"),
    pytest.param(DOCS / "index.md", DOCS / "zh/index.md", id="quick start"),
]
SAME = ("hyocr", "FP8", "vLLM", "Transformers", "Python")


@pytest.mark.parametrize(("english", "chinese"), TWINS)
def test_sections_correspond(english: Path, chinese: Path) -> None:
    ours, theirs = (headings(page.read_text(encoding="utf-8")) for page in (english, chinese))
    pairs = "\n".join(f"  {'#' * a[0]} {a[1]}  |  {'#' * b[0]} {b[1]}" for a, b in zip(ours, theirs, strict=False))
    assert [level for level, _ in ours] == [level for level, _ in theirs], (
        f"{english.name} has {len(ours)} headings, {chinese.name} {len(theirs)}; side by side they are\n{pairs}"
    )
    untranslated = [title for _, title in theirs if not re.search(r"[\u4e00-\u9fff]", title) and title not in SAME]
    assert not untranslated, f"{chinese.name}: not translated: {untranslated}"


@pytest.mark.parametrize(("english", "chinese"), TWINS)
def test_blocks_are_the_same_but_for_their_comments(english: Path, chinese: Path) -> None:
    ours, theirs = (blocks(page) for page in (english, chinese))
    for place, block in enumerate(ours):
        assert place < len(theirs), f"{chinese.name} lacks this block of {english.name}:\n{block}"
        assert theirs[place] == block, f"{chinese.name}: block {place + 1} should be that of {english.name}:\n{block}"
    assert len(theirs) == len(ours), f"{chinese.name} has a block that {english.name} lacks:\n{theirs[len(ours)]}"


@pytest.mark.parametrize(("english", "chinese"), TWINS)
@pytest.mark.parametrize("pattern", [r"`([^`\n]+)`", r"\]\(([^)]+)\)", r"^\|(?=.*\|$)"], ids=["code", "links", "rows"])
def test_nothing_named_in_english_is_missing(pattern: str, english: Path, chinese: Path) -> None:
    ours, theirs = (Counter(re.findall(pattern, prose(page), re.MULTILINE)) for page in (english, chinese))
    assert not ours - theirs, f"{chinese.name} lacks {dict(ours - theirs)}"
    assert not theirs - ours, f"{chinese.name} has more than {english.name}: {dict(theirs - ours)}"


def blocks(page: Path) -> list[str]:
    """Fenced blocks with language and without comments; what is indented by four spaces is a block too."""
    text = page.read_text(encoding="utf-8")
    fenced = [f"{language}\n{body}" for language, _, body in FENCE.findall(text)]
    indented = re.findall(r"(?:^ {4}\S.*\n)+", FENCE.sub("", text), re.MULTILINE)
    return [re.sub(r"[ \t]*#.*", "", block) for block in [*indented, *fenced]]


def prose(page: Path) -> str:
    """A page without its blocks; links without the folder that the translation has to go up."""
    return FENCE.sub("", page.read_text(encoding="utf-8")).replace("](../", "](")
