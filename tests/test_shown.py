"""The one way in which text from outside is shown."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hyocr_core import errors, shown
from hyocr_core.errors import HyocrError

ANY = st.text(st.characters(), max_size=2000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12\u202e34", "12⟨U+202E⟩34"),
        ("a\x00b\x1bc", "a⟨U+0000⟩b⟨U+001B⟩c"),
        ("\udc80", "⟨U+DC80⟩"),
        ("\ufeffx\u200b", "⟨U+FEFF⟩x⟨U+200B⟩"),
        ("a\u2028b", "a⟨U+2028⟩b"),
        ("two\nlines\tand 漢字 नि\u200dक ü", "two\nlines\tand 漢字 नि\u200dक ü"),
    ],
)
def test_what_cannot_be_seen_is_written_out(text: str, expected: str) -> None:
    assert shown.visible(text) == expected


@given(ANY, st.integers(20, 500))
@settings(deadline=None)
def test_a_message_is_one_line_of_bounded_length_without_control_characters(text: str, limit: int) -> None:
    line = shown.message(text, limit)
    assert len(line) <= limit
    assert not {unicodedata.category(character) for character in line} & {"Cc", "Cs", "Zl", "Zp"}
    assert shown.message(line, limit) == line


def test_of_a_long_message_both_ends_are_kept() -> None:
    line = shown.message(f"file: {'x' * 1000}: what to do")
    assert len(line) == shown.LONGEST
    assert line.startswith("file: xxx")
    assert line.endswith("xxx: what to do")


def test_a_name_can_neither_forge_a_line_nor_colour_the_terminal() -> None:
    assert shown.message("a\nhyocr: done\x1b[2J\u2028b\udcff 中文.png") == (
        "a hyocr: done⟨U+001B⟩[2J b⟨U+DCFF⟩ 中文.png"
    )


KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, HyocrError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_is_a_message(kind: type[HyocrError]) -> None:
    assert str(kind("a\x1b[2J\n" + "b" * 1000)) == shown.message("a\x1b[2J\n" + "b" * 1000)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<img src=x onerror=alert(1)>|.jsonl", "&lt;img src=x onerror=alert(1)&gt;\\|.jsonl"),
        ("[a](b)`c`*d*_e_ & ~f~ $g$", "\\[a\\](b)\\`c\\`\\*d\\*\\_e\\_ &amp; \\~f\\~ \\$g\\$"),
        ("a\n\n# b", "a  \\# b"),
        ("my-pages (2).jsonl", "my-pages (2).jsonl"),
    ],
)
def test_no_name_is_markup_in_markdown(text: str, expected: str) -> None:
    assert shown.markdown(text) == expected


def test_code_in_markdown_ends_where_it_should() -> None:
    assert shown.code("a`b\nc") == "`a'b c`"


@pytest.mark.parametrize("begin", list("=+-@\t\r\n'") + list("＝＋－＠"))
def test_no_text_is_a_formula_in_a_spreadsheet(begin: str) -> None:
    cell = shown.spreadsheet(f"{begin}1+2")
    assert cell.startswith("'")
    assert cell[1:] == shown.visible(f"{begin}1+2")


@given(ANY)
@settings(deadline=None)
def test_a_cell_gives_the_text_back(text: str) -> None:
    cell = shown.spreadsheet(text)
    assert (cell[1:] if cell.startswith("'") else cell) == shown.visible(text)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("a.b.o_proj",), "a.b.o_proj"),
        (("a.b.q_proj", "a.b.k_proj"), "a.b.{q_proj,k_proj}"),
        (("a.b.q_proj", "a.c.q_proj"), "a.b.q_proj a.c.q_proj"),
    ],
)
def test_layers_that_lie_side_by_side_are_named_together(names: tuple[str, ...], expected: str) -> None:
    assert shown.together(names) == expected
