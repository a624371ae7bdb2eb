"""Plugins as their distributions declare them: list them, pick one by name, import it, and say which one failed.

Listing reads metadata only and imports no plugin.
"""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from difflib import get_close_matches
from email.message import Message
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import ClassVar, TypeVar, cast

from hyocr_core.errors import BadInputError, one_line

Entry = TypeVar("Entry", bound="PluginEntry")


@dataclass(frozen=True)
class PluginEntry:
    """One entry point of a group, read from the metadata of a distribution; nothing is imported.

    value: what the entry point names, `module` or `module:object`.
    conflict: another installed distribution offers the same name.
    """

    kind: ClassVar[str]
    """What such a plugin is called in messages."""
    group: ClassVar[str]
    option: ClassVar[str] = ""
    """The command line's option that names one by `distribution:name`; empty if none can."""
    packages: ClassVar[str] = ""
    """How the names of distributions that offer such plugins begin, to suggest one; empty if there is no custom."""
    error: ClassVar[type[BadInputError]]

    name: str
    distribution: str
    version: str
    summary: str
    value: str
    conflict: bool = False

    @property
    def selector(self) -> str:
        """What picks this entry and no other: `distribution:name`."""
        return f"{self.distribution}:{self.name}"

    @property
    def source(self) -> str:
        """Distribution and version, as error messages show them."""
        return f"{self.distribution} {self.version}"

    @property
    def choice(self) -> str:
        """What to say on the command line to pick this entry; empty where nothing can be said."""
        return self.option and f"{self.option} {self.selector}"

    def at(self, hook: str = "", layer: str = "") -> str:
        """Who was at work, where: how every message about a plugin begins."""
        return ", ".join(filter(None, (str(self), hook and f"hook {hook}", layer)))

    def __str__(self) -> str:
        return f"{self.kind} {self.name} ({self.source})"


def installed(kind: type[Entry]) -> list[Entry]:
    """List the plugins of one kind that all installed distributions offer, by name; imports none of them."""
    entries = sorted(_entries(kind), key=lambda entry: (entry.name, entry.distribution))
    offers = Counter(entry.name for entry in entries)
    return [replace(entry, conflict=offers[entry.name] > 1) for entry in entries]


def choose(kind: type[Entry], selector: str) -> Entry:
    """Find the one plugin that `selector`, `name` or `distribution:name`, picks; the kind's error when none or two."""
    distribution, _, name = selector.rpartition(":")
    entries = installed(kind)
    offers = [entry for entry in entries if entry.name == name]
    if not offers:
        raise kind.error(_unknown(kind, name, entries))
    sources = " and ".join(entry.source for entry in offers)
    if distribution:
        chosen = [entry for entry in offers if canonical(entry.distribution) == canonical(distribution)]
        if not chosen:
            raise kind.error(f"no distribution {distribution!r} offers the {kind.kind} {name}; {sources} does")
        return chosen[0]
    if len(offers) > 1:
        if not kind.option:
            raise kind.error(f"the {kind.kind} {name} is offered by {sources}; uninstall all but one")
        choices = " or ".join(entry.choice for entry in offers)
        raise kind.error(f"the {kind.kind} {name} is offered by {sources}; say {choices}")
    return offers[0]


def load(entry: PluginEntry) -> object:
    """Import what the entry point names; its kind's error when that fails."""
    try:
        with redirect_stdout(sys.stderr):
            return EntryPoint(entry.name, entry.value, entry.group).load()
    except (Exception, SystemExit) as error:
        raise entry.error(f"{entry}: importing {entry.value!r} failed: {one_line(error, named=True)}") from error


def fault_of(entry: PluginEntry, loader: Callable[[str], object]) -> str | None:
    """Why naming this plugin would be refused by `loader`, the function that loads its kind; None if it would not."""
    try:
        loader(entry.selector)
    except entry.error as error:
        return str(error).removeprefix(f"{entry}: ")
    if not entry.conflict:
        return None
    return f"offered by another distribution too; {f'say {entry.choice}' if entry.option else 'uninstall all but one'}"


def canonical(distribution: str) -> str:
    """The name of a distribution as all its spellings have it."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _entries(kind: type[Entry]) -> Iterator[Entry]:
    """Read the entry points of each distribution once: of an editable install and a stale copy the first wins."""
    seen: set[str] = set()
    for distribution in distributions():
        try:
            found = list(_entries_of(distribution, kind))
        except Exception:  # noqa: S112
            # Metadata that cannot be read, perhaps of a package that has nothing to do with hyocr: no run may fail
            # for it, and importlib gives it no name that could be shown.
            continue
        fresh = [entry for entry in found if canonical(entry.distribution) not in seen]
        seen.update(canonical(entry.distribution) for entry in fresh)
        yield from fresh


def _entries_of(distribution: Distribution, kind: type[Entry]) -> Iterator[Entry]:
    for point in distribution.entry_points.select(group=kind.group):
        # A message, so that a missing field is None and not an exception.
        metadata = cast(Message, distribution.metadata)
        yield kind(
            name=point.name,
            distribution=metadata.get("Name") or "unnamed-distribution",
            version=metadata.get("Version") or "without version",
            summary=metadata.get("Summary") or "",
            value=point.value,
        )


def _unknown(kind: type[PluginEntry], name: str, entries: Sequence[PluginEntry]) -> str:
    names = sorted({entry.name for entry in entries})
    known = f"installed: {', '.join(names)}" if names else "none is installed"
    near = get_close_matches(name, names, n=1)
    if near:
        return f"no {kind.kind} {name!r} ({known}); did you mean {near[0]}?"
    if kind.packages and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        return f"no {kind.kind} {name!r} ({known}); try: pip install {kind.packages}{canonical(name)}"
    return f"no {kind.kind} {name!r} ({known})"
