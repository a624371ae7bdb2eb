"""How much the aliases of a YAML text stand for: nine lines may mean more values than there is memory for."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ruamel.yaml.nodes import Node

MOST_VALUES = 100_000
"""Keys and values in all, each as often as aliases repeat it."""


def check_aliases(text: str) -> None:
    """Raise ValueError for a text whose aliases repeat too much, or hold themselves; what the parser raises, too.

    Builds nothing: neither copies nor merged mappings.
    """
    if "*" not in text:
        return
    from ruamel.yaml import YAML

    root = YAML(typ="safe", pure=True).compose(io.StringIO(text))
    if root is not None and _size(root, {}) > MOST_VALUES:
        raise ValueError(f"its aliases (*) stand for more than {MOST_VALUES:,} values; write them out")


def _size(node: Node, known: dict[int, int]) -> int:
    """Nodes in a tree in which every alias is written out; known: sizes by identity, 0 of what is being counted."""
    if id(node) not in known:
        known[id(node)] = 0
        known[id(node)] = 1 + sum(_size(part, known) for part in _parts(node))
    elif not known[id(node)]:
        raise ValueError("an alias (*) stands for what it is a part of")
    return known[id(node)]


def _parts(node: Node) -> list[Node]:
    from ruamel.yaml.nodes import MappingNode, SequenceNode

    if isinstance(node, MappingNode):
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, SequenceNode) else []
