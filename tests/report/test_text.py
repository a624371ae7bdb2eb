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


def test_numbers() -> None:
    shown = (text.percent(0.01234), text.points(-0.0012), text.points(0.0012), text.signed_span((-0.001, 0.002)))
    assert shown == ("1.23\u00a0%", "−0.12", "+0.12", "−0.10 to +0.20")
    assert [text.size(size) for size in (12, 3400, 5_600_000, 1_927_000_000)] == [
        "12\u00a0bytes",
        "3.4\u00a0kB",
        "5.6\u00a0MB",
        "1.93\u00a0GB",
    ]
    assert [text.seconds(seconds) for seconds in (0.5, 12, 600)] == ["0.50\u00a0s", "12\u00a0s", "10.0\u00a0min"]
    assert (text.relative(0.61234), text.times(1.5), text.count(1, "page")) == ("61.2\u00a0%", "1.50×", "1\u00a0page")
    assert [text.number(value) for value in (0.000277, 12.34, 2010.4, 123456, 1.5e8)] == [
        "0.000277",
        "12.3",
        "2,010",
        "123,456",
        "1.5e+08",
    ]
    formats = (text.percent, text.points, text.span, text.size, text.number, text.seconds, text.relative, text.times)
    assert {show(None) for show in formats} == {"–"}
