"""How alike two tables are: tree edit distance based similarity, exact or, for huge ones, a lower bound of it."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from rapidfuzz.distance import Levenshtein

from hyocr_core.evaluation.parts.html_tables import Cell, Table
from hyocr_core.evaluation.parts.pairing import library

_LARGEST = 400
"""Nodes of both tables up to which the distance is exact: `apted` takes a second for so many, minutes for 2000."""
_LONGEST = 1 << 28
"""Characters of one table times those of the other, likewise."""

_EMPTY = Cell()

Row = tuple[Cell, ...]
_Part = TypeVar("_Part", bound=Hashable)


@dataclass(frozen=True)
class _Node:
    """A node as `apted` takes it: a table (no tag), a row or a cell."""

    tag: str = ""
    cell: Cell = _EMPTY
    children: tuple[_Node, ...] = ()


class _Costs:
    """What an edit costs: 1 for a node more or less, and for one changed as much as of its content is other."""

    valuecls = float

    def delete(self, node: _Node) -> float:  # noqa: ARG002
        return 1.0

    def insert(self, node: _Node) -> float:  # noqa: ARG002
        return 1.0

    def rename(self, one: _Node, other: _Node) -> float:
        return 1.0 if one.tag != other.tag else renaming(one.cell, other.cell)

    def children(self, node: _Node) -> tuple[_Node, ...]:
        return node.children


def teds(one: Table, other: Table) -> float:
    """1 less the edit distance over the nodes of the larger table, without its root, 0 to 1 (Zhong et al. 2020).

    As in the code that the authors published, and that benchmarks use, a node is a row or a cell, the root does not
    count. Two tables without any are alike.
    """
    nodes = max(one.nodes, other.nodes)
    return max(0.0, 1 - tree_distance(one, other) / nodes) if nodes else 1.0


def tree_distance(one: Table, other: Table) -> float:
    """The least cost of edits that make one table of the other.

    Rows that both have at the top, and at the bottom, are left out first, which changes no distance. Where what is left
    is too large to wait for, its rows are aligned, and the cells of rows that were changed: the cost of that can only
    be larger.
    """
    mine, theirs = _without_equal_ends(one.rows, other.rows)
    if not mine or not theirs:
        return _size([*mine, *theirs])
    huge = _size(mine) + _size(theirs) > _LARGEST or _characters(mine) * _characters(theirs) > _LONGEST
    return aligned_distance(mine, theirs) if huge else _exact_distance(mine, theirs)


def aligned_distance(mine: Sequence[Row], theirs: Sequence[Row]) -> float:
    """The cost of edits that change rows into rows and, within them, cells into cells: never less than the least."""
    cost = 0.0
    for row, other in aligned(mine, theirs):
        if row is None or other is None:
            cost += _size([row or other or ()])
        else:
            cells = aligned(row, other)
            cost += sum(1.0 if cell is None or new is None else renaming(cell, new) for cell, new in cells)
    return cost


def renaming(one: Cell, other: Cell) -> float:
    """What it costs to change a cell: 1 if it spans otherwise, or else the edit distance over the longer content."""
    if (one.columns, one.rows) != (other.columns, other.rows):
        return 1.0
    return Levenshtein.normalized_distance(one.content, other.content)


def _exact_distance(mine: Sequence[Row], theirs: Sequence[Row]) -> float:
    return float(library("apted").APTED(_tree(mine), _tree(theirs), _Costs()).compute_edit_distance())


def _tree(rows: Sequence[Row]) -> _Node:
    return _Node(children=tuple(_Node("tr", children=tuple(_Node("td", cell) for cell in row)) for row in rows))


def _without_equal_ends(mine: Sequence[Row], theirs: Sequence[Row]) -> tuple[Sequence[Row], Sequence[Row]]:
    shorter = min(len(mine), len(theirs))
    top = next((at for at in range(shorter) if mine[at] != theirs[at]), shorter)
    mine, theirs, shorter = mine[top:], theirs[top:], shorter - top
    bottom = next((at for at in range(shorter) if mine[-1 - at] != theirs[-1 - at]), shorter)
    return mine[: len(mine) - bottom], theirs[: len(theirs) - bottom]


def aligned(mine: Sequence[_Part], theirs: Sequence[_Part]) -> Iterator[tuple[_Part | None, _Part | None]]:
    """Both in their order, equal ones beside each other as far as Levenshtein's alignment puts them there."""
    for edit in Levenshtein.opcodes(mine, theirs):
        old, new = mine[edit.src_start : edit.src_end], theirs[edit.dest_start : edit.dest_end]
        yield from zip_longest(old, new)


def _size(rows: Sequence[Row]) -> int:
    return len(rows) + sum(map(len, rows))


def _characters(rows: Sequence[Row]) -> int:
    return sum(len(cell.content) for row in rows for cell in row)
