"""The house: where everything lives, as docs/architecture.md says it, the tree has it, and the linter holds it."""

from __future__ import annotations

import ast
import re
import tomllib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPO

CORE = REPO / "hyocr_core"
EVERYTHING = "everything above"
OFTEN = {"__init__.py", "config.py", "plugin.py"}
"""Names of files that may occur more than once, but for those in cli/, which are named after their commands."""
DOORS = ("hyocr_core", "hyocr_core.kit", "hyocr_core.formats", "hyocr_core.testing")
"""What a plugin may import."""


@dataclass(frozen=True)
class Row:
    folder: str
    meaning: str
    imports: tuple[str, ...]


def table() -> list[Row]:
    part = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8").split("\n## Folders\n")[1].split("\n## ")[0]
    rows: list[Row] = []
    for folder, meaning, cell in re.findall(r"^\| `([\w/]+)/` \| (.+?) \| *(.*?) *\|$", part, re.MULTILINE):
        above = tuple(row.folder for row in rows)
        rows.append(Row(folder, meaning, above if cell == EVERYTHING else tuple(re.findall(r"`([\w/]+)/`", cell))))
    return rows


def folders() -> set[str]:
    return {path.parent.relative_to(CORE).as_posix() for path in CORE.rglob("__init__.py")} - {"."}


def rooms() -> set[str]:
    """The folders that lie at the root of the package."""
    return {name for name in folders() if "/" not in name}


def test_the_table_has_every_folder_once() -> None:
    assert Counter(row.folder for row in table()) == Counter(folders())


@pytest.mark.parametrize("row", table(), ids=lambda row: row.folder)
def test_a_folder_says_what_lives_there(row: Row) -> None:
    docstring = ast.get_docstring(ast.parse((CORE / row.folder / "__init__.py").read_text(encoding="utf-8")))
    assert docstring is not None
    assert docstring.partition("\n")[0].startswith(f"{row.meaning}.")


def test_the_table_is_in_the_order_of_the_linter() -> None:
    linter = tomllib.loads((REPO / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [order] = [contract["layers"] for contract in linter["contracts"] if contract["type"] == "layers"]
    layers = [layer for line in reversed(order) if (layer := set(line.split(" : ")) & rooms())]
    rows = iter([row.folder for row in table() if row.folder in rooms()])
    assert [{next(rows) for _ in layer} for layer in layers] == layers
    assert list(rows) == []


def allowed() -> dict[str, set[str]]:
    """What each folder may import: what its row names, and what those may; a part also what its folder may."""
    found: dict[str, set[str]] = {}
    for row in table():
        below = set(row.imports) - set(found)
        assert not below, f"{row.folder} names {below}, which stands below it"
        own = {name for other in row.imports for name in (other, *found[other])}
        found[row.folder] = own | found.get(row.folder.rpartition("/")[0], set())
    return found


@pytest.mark.parametrize("row", table(), ids=lambda row: row.folder)
def test_a_folder_imports_what_its_row_says(row: Row) -> None:
    may = allowed()[row.folder]
    for path in sorted((CORE / row.folder).glob("*.py")):
        for module in imported(path):
            place = folder_of(module)
            inside = f"{place}/".startswith(f"{row.folder}/")
            assert inside or not place or may & {place, place.partition("/")[0]}, f"{path} imports {module}"


def folder_of(module: str) -> str:
    """The folder of the core that a module lies in; empty for one at its root or of another package."""
    found = [name for name in folders() if f"{module}.".startswith(f"hyocr_core.{name.replace('/', '.')}.")]
    return max(found, key=len, default="")


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports when it runs, early or late."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    typing = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) == "TYPE_CHECKING"
        for node in ast.walk(test)
    }
    for node in ast.walk(tree):
        if id(node) in typing:
            continue
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def test_a_file_name_says_one_thing() -> None:
    """Else a reader who is told `compare.py` opens the wrong one."""
    names = Counter(path.name for path in CORE.rglob("*.py") if path.parent.name != "cli" and path.name not in OFTEN)
    assert [name for name, count in names.items() if count > 1] == []


def test_few_modules_lie_at_the_root() -> None:
    assert len([path for path in CORE.glob("*.py") if path.name not in ("__init__.py", "__main__.py")]) <= 6


def test_what_the_page_names_is_there() -> None:
    text = (REPO / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"`([\w./-]+(?:/|\.py|\.txt|\.toml))`", text):
        places = (REPO / name, CORE / name)
        assert any(place.exists() for place in places) or name in OFTEN, name


def public() -> set[str]:
    """The names that tests/api.txt lists."""
    text = (REPO / "tests" / "api.txt").read_text(encoding="utf-8")
    return set(re.findall(r"^(?:class |def |)(hyocr_core[\w.]*?\.\w+)(?=[(:]| =|$)", text, re.MULTILINE))


def plugin_files() -> list[Path]:
    return [
        path
        for path in sorted((REPO / "plugins").glob("*/src/hyocr_plugin_*/*.py"))
        if "hyocr_core" in path.read_text(encoding="utf-8")
    ]


@pytest.mark.parametrize("path", plugin_files(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_plugin_of_ours_lives_by_the_public_names(path: Path) -> None:
    """As anyone's has to: only through the doors, and only what tests/api.txt lists."""
    names = public()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hyocr_core"):
            assert node.module in DOORS, f"{path.relative_to(REPO)} imports {node.module}"
            for alias in node.names:
                assert f"{node.module}.{alias.name}" in names, f"{path.relative_to(REPO)}: {node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            assert not any(alias.name.startswith("hyocr_core") for alias in node.names), path
