from __future__ import annotations

import pytest

from hyocr_core.report import text


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("12\u202e34", "12⟨U+202E⟩34"),
        ("a\x00b\x1bc", "a⟨U+0000⟩b⟨U+001B⟩c"),
        ("\udc80", "⟨U+DC80⟩"),
        ("\ufeffx\u200b", "⟨U+FEFF⟩x⟨U+200B⟩"),
        ("two\nlines\tand 漢字 नि\u200dक ü", "two\nlines\tand 漢字 नि\u200dक ü"),
    ],
)
def test_what_cannot_be_seen_is_written_out(given: str, shown: str) -> None:
    assert text.visible(given) == shown


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ("/home/me/secret/page.png: no image", "page.png: no image"),
        ("cannot read '/a/b c/d.pdf'", "cannot read 'd.pdf'"),
        ("~/scans/1.png, ../up/2.png", "1.png, 2.png"),
        ("1/2 and/or a/b at https://host/path/x, 2/3/4", "1/2 and/or a/b at https://host/path/x, 2/3/4"),
        ("data.jsonl:12", "data.jsonl:12"),
    ],
)
def test_folders_are_left_out(given: str, shown: str) -> None:
    assert text.without_folders(given) == shown


def test_what_is_white_is_marked() -> None:
    assert text.marked("  ") == "␣␣"
    assert text.marked("a\n\tb") == "a↵\n⇥b"
    assert text.marked("a b") == "a b"
