"""Plugins come in by four doors: every name that one of ours uses, or that the documentation shows, is public."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest

from hyocr_core import kit
from tests.conftest import REPO

DOORS = ("hyocr_core", "hyocr_core.kit", "hyocr_core.formats", "hyocr_core.testing")
SOURCES = sorted(
    path
    for pattern in ("plugins/*/src/hyocr_plugin_*/*.py", "docs/examples/**/*.py", "tests/distributions/**/*.py")
    for path in REPO.glob(pattern)
    if path.name != "conftest.py"
)
TESTS = sorted(path for path in REPO.glob("plugins/*/tests/*.py") if path.parts[-3] != "vllm")
LOADING = "hyocr_core.plugin.registry"
"""Also allowed in the tests of our own plugins, which call their hooks through the core's checks."""


def imported(path: Path) -> Iterator[tuple[str, str]]:
    """(module, name) of everything that a file takes from the core; the name is empty for `import module`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "hyocr_core":
            yield from ((node.module or "", alias.name) for alias in node.names)
        elif isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "hyocr_core")


def private(path: Path) -> list[str]:
    """What a file takes from the core that no door offers."""
    wrong = []
    for module, name in imported(path):
        door = f"{module}.{name}" if f"{module}.{name}" in DOORS else module
        offered = door in DOORS and (door != module or not name or name in import_module(module).__all__)
        wrong += [] if offered else [f"{module} {name}"]
    return wrong


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(REPO)))
def test_a_plugin_uses_public_names_only(path: Path) -> None:
    assert private(path) == []


@pytest.mark.parametrize("path", TESTS, ids=lambda path: str(path.relative_to(REPO)))
def test_the_tests_of_a_plugin_use_public_names_only(path: Path) -> None:
    assert [name for name in private(path) if not name.startswith(LOADING)] == []


def test_there_is_something_to_look_at() -> None:
    found = {name for path in SOURCES for name in imported(path)}
    assert {("hyocr_core.kit", "solve"), ("hyocr_core", "MethodSpec"), ("hyocr_core.formats", "MISREAD")} <= found
    assert len(SOURCES) > 40


def test_every_public_name_stands_in_the_frozen_list() -> None:
    frozen = (REPO / "tests" / "api.txt").read_text(encoding="utf-8")
    for module in DOORS:
        for name in import_module(module).__all__:
            assert re.search(rf"^(class |def )?{re.escape(f'{module}.{name}')}\b", frozen, re.MULTILINE), name


def test_every_tool_is_documented() -> None:
    page = (REPO / "docs" / "contract.md").read_text(encoding="utf-8")
    shown = re.findall(r"^::: hyocr_core\.kit\.(\w+)$", page, re.MULTILINE)
    assert sorted(shown) == sorted(kit.__all__)


@pytest.mark.parametrize("name", kit.__all__)
def test_every_tool_says_what_it_does(name: str) -> None:
    value = getattr(kit, name)
    assert not callable(value) or value.__doc__
