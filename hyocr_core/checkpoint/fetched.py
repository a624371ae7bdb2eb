"""What is fetched of a repository: the files of one folder that a checkpoint consists of, and none of code."""

from __future__ import annotations

from dataclasses import dataclass
from glob import escape
from pathlib import Path

CONNECT_SECONDS = 3
"""To wait for a connection to each of a hub's addresses; the clients themselves would wait for minutes."""

ANSWER_SECONDS = 30

_ALLOWED = ("*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "LICENSE*", "License*", "NOTICE*", "README.md")
# Patterns match whole paths: this leaves out every sub folder, such as an older model under `v1.0/`.
_IGNORED = ("*/*",)


@dataclass(frozen=True)
class Fetched:
    """snapshot: the root of the repository on this machine. revision: its commit, or the best that is known of it."""

    snapshot: Path
    revision: str | None


@dataclass(frozen=True)
class Patterns:
    """Globs of paths in a repository, as the clients of both hubs take them."""

    allowed: list[str]
    ignored: list[str]


def patterns(subfolder: str | None) -> Patterns:
    """What to fetch of that folder, and of no other."""
    inside = "" if subfolder is None else f"{escape(subfolder)}/"
    return Patterns([inside + pattern for pattern in _ALLOWED], [inside + pattern for pattern in _IGNORED])
