"""Every page has a Chinese one that says what it says today: same sections, commands, files and links."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.docs.pages import DOCS, FENCE, headings
from tools import chinese_pages

TWINS = [pytest.param(*pages, id=pages[0].stem) for pages in chinese_pages.twins()]
SAME = ("hyocr", "FP8", "vLLM", "Transformers", "Python", "Python API", "JSONL")
REFERENCE = re.compile(r"^::: ", re.MULTILINE)
"""What is made of docstrings stands on the English page alone, to which the Chinese one leads."""
OTHERWISE = {"视觉塔": "视觉编码器", "就近取整": "最近舍入", "成对的 CER": "配对差值", "偏好": "偏乐观"}
"""Words that were there once, and what is said for them."""
CHINESE = re.compile(r"[\u4e00-\u9fff]")


def test_no_page_is_forgotten() -> None:
    """Those for the project's own developers alone are English alone."""
    ours = {page.name for page in DOCS.glob("*.md")} - set(chinese_pages.ENGLISH_ALONE)
    assert {page.name for page in (DOCS / "zh").rglob("*.md")} == ours


def test_every_page_was_written_from_the_english_of_today() -> None:
    """`python tools/chinese_pages.py --renew docs/zh/PAGE.md` notes that the Chinese says it again."""
    assert not (lagging := chinese_pages.lagging()), "\n".join(lagging)


def test_a_change_of_the_english_is_found_and_can_be_noted(tmp_path: Path) -> None:
    english, chinese = tmp_path / "page.md", tmp_path / "zh.md"
    english.write_text("# Page\n\nSome words.\n", encoding="utf-8")
    chinese.write_text("# 页面\n\n几个词。\n", encoding="utf-8")
    assert not chinese_pages.is_current(english, chinese)
    chinese_pages.renew(english, chinese)
    once = chinese.read_text(encoding="utf-8")
    chinese_pages.renew(english, chinese)
    assert chinese.read_text(encoding="utf-8") == once
    assert once.startswith("# 页面\n\n几个词。\n\n<!-- English: ")
    assert chinese_pages.is_current(english, chinese)
    english.write_text("# Page\n\nOther words.\n", encoding="utf-8")
    assert not chinese_pages.is_current(english, chinese)


@pytest.mark.parametrize(("english", "chinese"), TWINS)
def test_sections_correspond(english: Path, chinese: Path) -> None:
    ours, theirs = (headings(page.read_text(encoding="utf-8")) for page in (english, chinese))
    pairs = "\n".join(f"  {'#' * a[0]} {a[1]}  |  {'#' * b[0]} {b[1]}" for a, b in zip(ours, theirs, strict=False))
    assert [level for level, _ in ours] == [level for level, _ in theirs], (
        f"{english.name} has {len(ours)} headings, {chinese.name} {len(theirs)}; side by side they are\n{pairs}"
    )
    untranslated = [title for _, title in theirs if not _is_chinese(title)]
    assert not untranslated, f"{chinese.name}: not translated: {untranslated}"


def _is_chinese(title: str) -> bool:
    """Messages of the program are English, and names are the same."""
    return bool(CHINESE.search(title)) or title in SAME or re.fullmatch("`[^`]+`", title) is not None


@pytest.mark.parametrize(("english", "chinese"), TWINS)
def test_no_paragraph_is_english(english: Path, chinese: Path) -> None:
    shown = re.sub(r"`[^`]*`|<[^>]*>|\[[^]]*\]\([^)]*\)|https?://\S+", "", prose(chinese))
    left = [line for line in shown.splitlines() if not CHINESE.search(line) and re.search(r"(?:[a-z]{2,}\W+){5}", line)]
    assert not left, f"{chinese.name}: not translated: {left}"


@pytest.mark.parametrize(("english", "chinese"), TWINS)
def test_one_thing_has_one_name(english: Path, chinese: Path) -> None:
    text = chinese.read_text(encoding="utf-8")
    assert not (found := {word: better for word, better in OTHERWISE.items() if word in text}), found


@pytest.mark.parametrize(("english", "chinese"), TWINS)
def test_blocks_are_the_same_but_for_their_comments(english: Path, chinese: Path) -> None:
    ours, theirs = (blocks(page) for page in (english, chinese))
    for place, block in enumerate(ours):
        assert place < len(theirs), f"{chinese.name} lacks this block of {english.name}:\n{block}"
        assert theirs[place] == block, f"{chinese.name}: block {place + 1} should be that of {english.name}:\n{block}"
    assert len(theirs) == len(ours), f"{chinese.name} has a block that {english.name} lacks:\n{theirs[len(ours)]}"


@pytest.mark.parametrize(("english", "chinese"), TWINS)
@pytest.mark.parametrize(
    "pattern",
    [r"`([^`]+)`", r"\]\(([^)#\s]+)", r"^(\|)(?=.*\|$)", r"^<!-- (generated: .*) -->$"],
    ids=["code", "links", "rows", "generated"],
)
def test_nothing_named_in_english_is_missing(pattern: str, english: Path, chinese: Path) -> None:
    ours, theirs = (Counter(re.findall(pattern, prose(page), re.MULTILINE)) for page in (english, chinese))
    assert not ours - theirs, f"{chinese.name} lacks {dict(ours - theirs)}"
    if not REFERENCE.search(english.read_text(encoding="utf-8")):
        assert not theirs - ours, f"{chinese.name} has more than {english.name}: {dict(theirs - ours)}"


@pytest.mark.parametrize(("english", "chinese"), TWINS)
def test_anchors_are_headings_of_the_chinese_pages(english: Path, chinese: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s:]*)#([^)\s]+)\)", chinese.read_text(encoding="utf-8")):
        page = (chinese.parent / target).resolve() if target else chinese
        known = [_slug(title) for _, title in headings(page.read_text(encoding="utf-8"))]
        assert anchor in known, f"{chinese.name}: {target}#{anchor}: {known}"


def _slug(title: str) -> str:
    """As GitHub and the site make anchors."""
    return re.sub(r"[^\w\- ]", "", title.replace("`", "").lower()).replace(" ", "-")


def blocks(page: Path) -> list[str]:
    """Fenced blocks with language and without comments; what is indented by four spaces is a block too."""
    text = page.read_text(encoding="utf-8")
    fenced = [f"{language}\n{body}" for language, _, body in FENCE.findall(text)]
    outside = re.sub(r"^:::.*\n(?: +.*\n)*", "", FENCE.sub("", text), flags=re.MULTILINE)
    indented = re.findall(r"(?:^ {4}\S.*\n)+", outside, re.MULTILINE)
    return [re.sub(r"[ \t]*#.*", "", block) for block in [*indented, *fenced]]


def prose(page: Path) -> str:
    """A page without its blocks; links without the folders that lead to the page's twin."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    return text.replace("](../", "](").replace("](docs/zh/", "](docs/")
