"""What the README and the documentation say of `make`. Their commands run in tests/docs/test_commands.py."""

from __future__ import annotations

import re

from tests.conftest import REPO


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    pages = [REPO / "README.md", REPO / "README_zh.md", *(REPO / "docs").rglob("*.md"), REPO / "benchmarks/README.md"]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    named = set(re.findall(r"(?:`|^    )make ([a-z-]+)", text, re.MULTILINE))
    assert {"demo", "test", "lint", "clients", "bench"} <= named
    assert named <= targets


def test_every_make_target_is_explained() -> None:
    text = (REPO / "Makefile").read_text(encoding="utf-8")
    (targets,) = re.findall(r"^\.PHONY: help (.+)$", text, re.MULTILINE)
    explained = re.findall(r"@echo 'make ([a-z-]+)", text)
    assert sorted(explained) == sorted(targets.split())
