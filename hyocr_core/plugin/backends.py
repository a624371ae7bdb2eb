"""Find, import and validate backends: entry points of the group `hyocr.backends`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from hyocr_core.contract.backend import ENTRY_POINT_GROUP, AnyBackend, BackendConfig
from hyocr_core.errors import BackendError, BadInputError
from hyocr_core.plugin import entry_points
from hyocr_core.plugin.classes import Loaded, load_class
from hyocr_core.plugin.entry_points import PluginEntry


@dataclass(frozen=True)
class BackendEntry(PluginEntry):
    """One entry point of the group `hyocr.backends`."""

    kind: ClassVar[str] = "backend"
    group: ClassVar[str] = ENTRY_POINT_GROUP
    option: ClassVar[str] = "--backend"
    error: ClassVar[type[BadInputError]] = BackendError


LoadedBackend: TypeAlias = Loaded[BackendEntry, AnyBackend]
"""A backend that keeps the contract, not yet started."""


def installed_backends() -> list[BackendEntry]:
    """List the backends of all installed distributions, by name; imports none of them."""
    return entry_points.installed(BackendEntry)


def load_backend(selector: str) -> LoadedBackend:
    """Import the one backend that `selector`, `name` or `distribution:name`, picks and validate it.

    Raises BackendError: unknown, offered twice, fails to import, other API version, or the contract is not kept.
    """
    return load_class(BackendEntry, selector, AnyBackend, "Backend", BackendConfig)
