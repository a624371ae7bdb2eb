"""Tree edit distance of tables, against a plain recursion over forests."""

from __future__ import annotations

import random
import sys
from functools import cache

import pytest

from hyocr_core.contract.metric import MetricConfig
from hyocr_core.evaluation.parts.html_tables import Cell, Table
from hyocr_core.evaluation.parts.tables import TedsStructure
from hyocr_core.evaluation.parts.teds import aligned_distance, teds, tree_distance
from tests.evaluation.parts.oracles import normalized

pytest.importorskip("apted")

Tree = tuple[tuple[str, Cell], tuple["Tree", ...]]


def tree(table: Table) -> Tree:
    rows = tuple((("tr", Cell()), tuple((("td", cell), ()) for cell in row)) for row in table.rows)
    return (("table", Cell()), rows)


def change(one: tuple[str, Cell], other: tuple[str, Cell]) -> float:
    (tag, cell), (other_tag, new) = one, other
    if tag != other_tag or (cell.columns, cell.rows) != (new.columns, new.rows):
        return 1.0
    return normalized(cell.content, new.content)


@cache
def forest_distance(one: tuple[Tree, ...], other: tuple[Tree, ...]) -> float:
    """Zhang and Shasha's recursion on the rightmost trees, as their definition has it."""
    if not one and not other:
        return 0.0
    found = []
    if one:
        found.append(1 + forest_distance(one[:-1] + one[-1][1], other))
    if other:
        found.append(1 + forest_distance(one, other[:-1] + other[-1][1]))
    if one and other:
        (label, inside), (new, within) = one[-1], other[-1]
        rest = forest_distance(one[:-1], other[:-1])
        found.append(rest + forest_distance(inside, within) + change(label, new))
    return min(found)


def random_table(draw: random.Random) -> Table:
    def cell() -> Cell:
        return Cell(draw.choice([1, 1, 1, 2]), draw.choice([1, 1, 2]), tuple(draw.choices("ab", k=draw.randrange(4))))

    return Table([tuple(cell() for _ in range(draw.randrange(4))) for _ in range(draw.randrange(5))])


def changed(table: Table, draw: random.Random) -> Table:
    """A table with a row or a cell more, less or other: such as share rows at their ends."""
    rows = [list(row) for row in table.rows]
    if not rows:
        return random_table(draw)
    at = draw.randrange(len(rows))
    match draw.randrange(4):
        case 0:
            del rows[at]
        case 1:
            rows.insert(at, list(rows[at]))
        case 2:
            rows[at] = rows[at][1:]
        case 3:
            rows[at].append(Cell(content=("c",)))
    return Table([tuple(row) for row in rows])


@pytest.mark.parametrize("seed", range(200))
def test_it_is_that_of_a_plain_recursion(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    one = random_table(draw)
    other = random_table(draw) if seed % 2 else changed(one, draw)
    least = forest_distance((tree(one),), (tree(other),))
    assert tree_distance(one, other) == pytest.approx(least)
    assert tree_distance(other, one) == pytest.approx(least)
    assert aligned_distance(one.rows, other.rows) >= least - 1e-9
    nodes = max(sum(1 + len(row) for row in table.rows) for table in (one, other))
    assert teds(one, other) == pytest.approx(max(0, 1 - least / nodes) if nodes else 1)


@pytest.mark.parametrize("seed", range(200))
def test_the_structure_is_that_of_trees_without_content(seed: int) -> None:
    draw = random.Random(seed)  # noqa: S311
    one = random_table(draw)
    other = random_table(draw) if seed % 2 else changed(one, draw)
    bare, others = (
        (tree(Table([tuple(Cell(c.columns, c.rows) for c in row) for row in t.rows])),) for t in (one, other)
    )
    nodes = max(sum(1 + len(row) for row in table.rows) for table in (one, other))
    expected = max(0, 1 - forest_distance(bare, others) / nodes) if nodes else 1
    assert TedsStructure(MetricConfig()).alike(one, other) == pytest.approx(expected)


def table(*rows: str) -> Table:
    return Table([tuple(Cell(content=tuple(cell)) for cell in row.split("|")) for row in rows])


@pytest.mark.parametrize(
    ("one", "other", "score"),
    [
        (table("a|b", "c|d"), table("a|b", "c|d"), 1),
        (table("a|b", "c|d"), table("a|b", "c"), 1 - 1 / 6),  # a cell is lost: one of six nodes
        (table("a|b", "c|d"), table("a|b"), 1 - 3 / 6),  # a row of two cells is lost
        (table("a|b", "c|d"), table("a|b", "c|x"), 1 - 1 / 6),
        (table("a|b", "c|four"), table("a|b", "c|foul"), 1 - 0.25 / 6),  # a quarter of a cell's characters
        (Table([(Cell(2),)]), Table([(Cell(1),)]), 1 - 1 / 2),  # another span is another cell
        (table("a"), Table(), 0),
        (Table(), Table(), 1),
    ],
)
def test_it_is_as_published_on_tables_by_hand(one: Table, other: Table, score: float) -> None:
    assert teds(one, other) == pytest.approx(score)
    assert teds(other, one) == pytest.approx(score)


@pytest.fixture
def no_apted(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take minutes on what the test gives it."""
    monkeypatch.setitem(sys.modules, "apted", None)


def test_a_huge_table_has_a_lower_bound(no_apted: None) -> None:
    rows = [tuple(Cell(content=tuple(f"{at} {column}")) for column in range(100)) for at in range(100)]
    lost = [row[1:] if at in (0, 99) else row for at, row in enumerate(rows) if at != 50]
    assert teds(Table(rows), Table(lost)) == pytest.approx(1 - (101 + 2) / 10_100)
    other = [tuple(Cell(content=tuple(f"x{column}{at}")) for column in range(1)) for at in range(10_000)]
    assert 0 <= teds(Table(rows), Table(other)) < 0.3


def test_a_few_huge_cells_do_too(no_apted: None) -> None:
    one, other = ([(Cell(content=tuple(letters * 10_000)),) * 9] for letters in ("ab", "ba"))
    assert teds(Table(one), Table(other)) == pytest.approx(1 - 9 * 2 / 20_000 / 10)
