from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hyocr_core.report.diff import Piece, diff, shortened

texts = st.text(alphabet="ab \n漢", max_size=12)


def distance(left: str, right: str) -> int:
    """Levenshtein distance by its definition."""
    if not left or not right:
        return len(left) + len(right)
    rest = distance(left[1:], right[1:])
    if left[0] == right[0]:
        return rest
    return 1 + min(rest, distance(left[1:], right), distance(left, right[1:]))


def joined(pieces: list[Piece]) -> tuple[str, str]:
    return "".join(piece.old for piece in pieces), "".join(piece.new for piece in pieces)


@given(texts, texts)
def test_pieces_are_both_texts(old: str, new: str) -> None:
    assert joined(diff(old, new)) == (old, new)


@given(st.text(alphabet="ab ", max_size=6), st.text(alphabet="ab ", max_size=6))
def test_pieces_are_the_shortest_way(old: str, new: str) -> None:
    changed = [piece for piece in diff(old, new) if piece.kind != "equal"]
    assert sum(max(len(piece.old), len(piece.new)) for piece in changed) == distance(old, new)


def test_kinds() -> None:
    assert diff("cat 12", "coat 2") == [
        Piece("equal", "c", "c"),
        Piece("insert", "", "o"),
        Piece("equal", "at ", "at "),
        Piece("delete", "1", ""),
        Piece("equal", "2", "2"),
    ]
    assert diff("0", "O") == [Piece("replace", "0", "O")]
    assert diff("", "") == []


@given(st.lists(st.tuples(texts, texts, st.integers(0, 60)), max_size=4), st.integers(1, 5))
def test_shortening_loses_nothing_but_what_is_equal(parts: list[tuple[str, str, int]], context: int) -> None:
    old = "".join(mine + "=" * equal for mine, _, equal in parts)
    new = "".join(other + "=" * equal for _, other, equal in parts)
    full = diff(old, new)
    short = shortened(full, context)
    assert joined(short) == (old, new)
    assert [piece for piece in short if piece.kind not in ("equal", "gap")] == [
        piece for piece in full if piece.kind != "equal"
    ]
    assert all(piece.old == piece.new for piece in short if piece.kind == "gap")
    assert all(len(piece.new) <= 3 * context for piece in short if piece.kind == "equal")


def test_what_is_near_a_difference_stays() -> None:
    short = shortened(diff("a" * 500 + "x" + "b" * 500, "a" * 500 + "y" + "b" * 500), 10)
    assert [(piece.kind, len(piece.new)) for piece in short] == [
        ("gap", 490),
        ("equal", 10),
        ("replace", 1),
        ("equal", 10),
        ("gap", 490),
    ]
