"""Plain implementations that the metrics of parts are held against: nothing here is fast."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence


def levenshtein(one: Sequence[Hashable], other: Sequence[Hashable]) -> int:
    """Wagner and Fischer's table, a row at a time."""
    row = list(range(len(other) + 1))
    for i, mine in enumerate(one, 1):
        before, row[0] = row[0], i
        for j, theirs in enumerate(other, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (mine != theirs))
    return row[-1]


def normalized(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    return levenshtein(one, other) / max(len(one), len(other), 1)


def matchings(rows: int, columns: int, row: int = 0, taken: frozenset[int] = frozenset()) -> Iterator[dict[int, int]]:
    """Every way to give some of the rows a column each: brute force, for a few of both."""
    if row == rows:
        yield {}
        return
    for rest in matchings(rows, columns, row + 1, taken):
        yield rest
    for column in set(range(columns)) - taken:
        for rest in matchings(rows, columns, row + 1, taken | {column}):
            yield {row: column, **rest}
