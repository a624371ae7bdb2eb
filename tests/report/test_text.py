from __future__ import annotations

import pytest

from hyocr_core.report import text


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
