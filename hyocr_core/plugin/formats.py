"""Find, import and validate checkpoint formats: entry points of the group `hyocr.formats`. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from hyocr_core.errors import BadInputError, FormatError, one_line
from hyocr_core.formats import Format, StoredFormats
from hyocr_core.formats.base import ENTRY_POINT_GROUP
from hyocr_core.formats.stored import Spellings
from hyocr_core.plugin import entry_points
from hyocr_core.plugin.classes import load_entry
from hyocr_core.plugin.entry_points import PluginEntry


@dataclass(frozen=True)
class FormatEntry(PluginEntry):
    """One entry point of the group `hyocr.formats`."""

    kind: ClassVar[str] = "format"
    group: ClassVar[str] = ENTRY_POINT_GROUP
    error: ClassVar[type[BadInputError]] = FormatError


def installed_formats() -> list[FormatEntry]:
    """List the formats of all installed distributions, by name; imports none of them."""
    return entry_points.installed(FormatEntry)


def load_format(selector: str) -> type[Format]:
    """Import the one format that `selector`, `name` or `distribution:name`, picks and validate it.

    Raises FormatError: unknown, offered twice, fails to import, other API version, or the contract is not kept.
    """
    return _load(entry_points.choose(FormatEntry, selector))


def _load(entry: FormatEntry) -> type[Format]:
    found: type[Format] = load_entry(entry, Format, "formats.Format", None).cls
    try:
        found.usual()
    except Exception as error:
        raise FormatError(f"{entry}: its class {found.__name__}: usual: {one_line(error, named=True)}") from error
    return found


def read_formats(config: Mapping[str, Any], spellings: Spellings) -> StoredFormats:
    """Read a quantization_config with the formats that are installed.

    Raises CheckpointError naming the key and value that is not read, FormatError when a format cannot be used.
    """
    return StoredFormats.read(config, _Installed(), spellings)


def usual_formats() -> dict[str, Format]:
    """Title -> format, of every installed one that can be used, with the settings that are usual."""
    titled = {title: written for kind in _Installed().names().values() for title, written in kind.usual().items()}
    return dict(sorted(titled.items()))


class _Installed:
    """See `hyocr_core.formats.stored.Catalogue`."""

    def __init__(self) -> None:
        self._entries = {entry.name: entry for entry in installed_formats()}

    def find(self, name: str) -> type[Format] | None:
        entry = self._entries.get(name)
        if entry is None:
            return None
        # Of two that claim the name neither is taken, which `load_format` says.
        return load_format(name) if entry.conflict else _load(entry)

    def names(self) -> dict[str, type[Format]]:
        found = {}
        for name in self._entries:
            try:
                found[name] = load_format(name)
            except FormatError:
                # A broken neighbour is no reason to keep quiet of the others.
                continue
        return found
