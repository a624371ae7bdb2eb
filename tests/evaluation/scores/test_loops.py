from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hyocr_core.evaluation.scores.loops import cut_loop, ends_in_loop, loop_stop


def cut_by_the_cleaner(text: str) -> bool:
    """HunyuanOCR's rule in its own terms: count the copies of every possible unit backwards from the end."""
    if len(text) < 2000:
        return False
    for length in range(2, len(text) // 10 + 1):
        copies, end = 0, len(text)
        while end >= length and text[end - length : end] == text[-length:]:
            copies, end = copies + 1, end - length
        if copies >= 10:
            return True
    return False


PROSE = "".join(chr(0x4E00 + 7 * index % 3001) for index in range(3000))  # no unit of it comes twice in a row


@pytest.mark.parametrize(
    ("text", "loop"),
    [
        (PROSE, False),
        (PROSE + "<td></td>" * 10, True),
        (PROSE + "<td></td>" * 9, False),
        (PROSE + "<td></td>" * 30 + "end", False),
        (PROSE + "." * 20, True),  # ten times ".."
        (PROSE + "." * 19, False),
        (PROSE + "\n" * 500, True),
        (PROSE[:200] * 10, True),
        (PROSE[:199] * 10, False),  # 1990 characters
        ("ab" * 999 + "c", False),
        ("a" * 2000, True),
        ("a" * 1999, False),
        ("", False),
    ],
)
def test_a_loop_is_what_hunyuans_cleaner_cuts(text: str, loop: bool) -> None:
    assert ends_in_loop(text) is loop
    assert cut_by_the_cleaner(text) is loop


@given(
    st.integers(1990, 2100),
    st.text(alphabet="ab\n", min_size=1, max_size=6),
    st.integers(7, 14),
    st.text("ab", max_size=2),
)
def test_loops_are_found_as_the_cleaner_finds_them(start: int, unit: str, copies: int, tail: str) -> None:
    text = PROSE[:start] + unit * copies + tail
    assert ends_in_loop(text) is cut_by_the_cleaner(text)


@pytest.mark.parametrize(
    ("text", "left"),
    [
        (PROSE + "<td></td>" * 30, PROSE + "<td></td>"),
        (PROSE + "." * 21, PROSE + "..."),  # rounds are of two characters at least
        (PROSE + "\n" * 500, PROSE + "\n\n"),
        ("ab" * 1500, "ab"),
        (PROSE + "<td></td>" * 9, PROSE + "<td></td>" * 9),
        ("ab" * 999, "ab" * 999),
        ("", ""),
    ],
)
def test_of_a_loop_one_round_is_left(text: str, left: str) -> None:
    assert cut_loop(text) == left


def stopped_by_the_clients(text: str) -> bool:
    """The clients' rule for what is written so far: some unit of 1 to 256 characters, not all blank, eight times."""
    for length in range(1, 257):
        copies = {text[len(text) - length * (back + 1) : len(text) - length * back] for back in range(8)}
        (unit, *others) = copies
        if not others and len(unit) == length and unit.strip():
            return True
    return False


@pytest.mark.parametrize(
    ("text", "end"),
    [
        (PROSE + PROSE, None),
        (PROSE + "<td></td>" * 200, 4000),
        (PROSE + "<td></td>" * 100, None),  # ends before anybody looks
        (PROSE[:100] + "ab" * 10_000, 4000),
        (PROSE + PROSE[:999] + "-" * 300, None),  # no eight yet at the first look, over before the second
        (PROSE + PROSE[:993] + "-" * 8, None),  # seven of them at the first look
        (PROSE + PROSE[:992] + "-" * 8 + PROSE, 4000),
        (PROSE + PROSE[:400] + PROSE[:200] * 8, 5000),
        (PROSE + PROSE[:256] * 12, 6000),
        (PROSE + PROSE[:257] * 40, None),  # longer rounds are left alone
        (PROSE + "\n" * 9000, None),  # and so are blank ones
        (PROSE + " \n|" * 2000, 4000),
        ("", None),
    ],
)
def test_an_answer_is_stopped_at_the_first_look_that_finds_a_loop(text: str, end: int | None) -> None:
    assert loop_stop(text) == end
    looks = [length for length in range(4000, len(text) + 1, 1000) if stopped_by_the_clients(text[:length])]
    assert min(looks, default=None) == end


@given(st.integers(2900, 4100), st.text("ab\n", min_size=1, max_size=5), st.integers(0, 900), st.text("ab", max_size=2))
def test_stops_are_the_clients(start: int, unit: str, copies: int, tail: str) -> None:
    text = (PROSE + PROSE)[:start] + unit * copies + tail
    looks = [length for length in range(4000, len(text) + 1, 1000) if stopped_by_the_clients(text[:length])]
    assert loop_stop(text) == min(looks, default=None)


@pytest.mark.parametrize("unit", ["<tr><td>17</td></tr>", PROSE[:125], "--"])
def test_what_was_stopped_ends_in_a_loop_of_which_one_round_is_left(unit: str) -> None:
    """A round of 125 characters is there eight times, fewer than the cleaner wants to see."""
    text = PROSE + unit * 700
    assert loop_stop(text) == 4000
    assert ends_in_loop(text[:4000])
    assert cut_loop(text[:4000]) == PROSE + unit
    assert not ends_in_loop(PROSE + unit * 7)
