"""Find, import and validate observers: entry points of the group `hyocr.observers`. Imports no torch."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, ClassVar

from hyocr_core.contract.config import parse_config
from hyocr_core.contract.observer import ENTRY_POINT_GROUP, OBSERVED, Observer, ObserverConfig
from hyocr_core.errors import BadInputError, ConfigError, ObserverError
from hyocr_core.plugin import entry_points
from hyocr_core.plugin.entry_points import PluginEntry
from hyocr_core.plugin.registry import check_api_version, check_config_class, did_you_mean


@dataclass(frozen=True)
class ObserverEntry(PluginEntry):
    """One entry point of the group `hyocr.observers`."""

    kind: ClassVar[str] = "observer"
    group: ClassVar[str] = ENTRY_POINT_GROUP
    option: ClassVar[str] = "--observe"
    error: ClassVar[type[BadInputError]] = ObserverError


@dataclass(frozen=True)
class LoadedObserver:
    """An observer that keeps the contract, not yet started."""

    entry: ObserverEntry
    observer: type[Observer]

    def config(self, options: Mapping[str, Any]) -> ObserverConfig:
        """Validate its options; raises ConfigError naming the key and what is allowed."""
        try:
            return parse_config(self.observer.config_class, options, "options")
        except ConfigError as error:
            raise ConfigError(f"{self.entry}: {error}") from error.__cause__


def installed_observers() -> list[ObserverEntry]:
    """List the observers of all installed distributions, by name; imports none of them."""
    return entry_points.installed(ObserverEntry)


def load_observer(selector: str) -> LoadedObserver:
    """Import the one observer that `selector`, `name` or `distribution:name`, picks and validate it.

    Raises ObserverError: unknown, offered twice, fails to import, other API version, or the contract is not kept.
    """
    entry = entry_points.choose(ObserverEntry, selector)
    found = entry_points.load(entry)
    try:
        return LoadedObserver(entry, _checked(found, entry))
    except ObserverError as error:
        raise ObserverError(f"{entry}: {error}") from error.__cause__


def _checked(found: object, entry: ObserverEntry) -> type[Observer]:
    if not (inspect.isclass(found) and issubclass(found, Observer)):
        raise ObserverError(f"{entry.value} is no class that derives from hyocr_core.Observer")
    name = found.__name__
    if not hasattr(found, "api_version"):
        raise ObserverError(f"its class {name} does not say which plugin API it speaks; write api_version = 1")
    check_api_version(found.api_version, entry)
    if inspect.isabstract(found):
        near = get_close_matches("called", [key for key in vars(found) if not key.startswith("_")], n=1)
        raise ObserverError(f"its class {name} has no method called" + (f"; rename {near[0]}" if near else ""))
    hooks = getattr(found, "hooks", ())
    if not hooks or not isinstance(hooks, tuple):
        raise ObserverError(f"its class {name} names no hooks; write such as hooks = ('calibrate',)")
    for hook in hooks:
        if hook not in OBSERVED:
            raise ObserverError(f"there is no hook {hook} to observe{did_you_mean(str(hook), OBSERVED)}")
    check_config_class(found.config_class, ObserverConfig, entry)
    return found
