"""Find, import and validate observers: entry points of the group `hyocr.observers`. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from hyocr_core.contract.observer import ENTRY_POINT_GROUP, OBSERVED, Observer, ObserverConfig
from hyocr_core.errors import BadInputError, ObserverError
from hyocr_core.plugin import entry_points
from hyocr_core.plugin.classes import Loaded, load_class, refusal
from hyocr_core.plugin.entry_points import PluginEntry
from hyocr_core.plugin.registry import did_you_mean


@dataclass(frozen=True)
class ObserverEntry(PluginEntry):
    """One entry point of the group `hyocr.observers`."""

    kind: ClassVar[str] = "observer"
    group: ClassVar[str] = ENTRY_POINT_GROUP
    option: ClassVar[str] = "--observe"
    error: ClassVar[type[BadInputError]] = ObserverError


LoadedObserver: TypeAlias = Loaded[ObserverEntry, Observer]
"""An observer that keeps the contract, not yet started."""


def installed_observers() -> list[ObserverEntry]:
    """List the observers of all installed distributions, by name; imports none of them."""
    return entry_points.installed(ObserverEntry)


def load_observer(selector: str) -> LoadedObserver:
    """Import the one observer that `selector`, `name` or `distribution:name`, picks and validate it.

    Raises ObserverError: unknown, offered twice, fails to import, other API version, or the contract is not kept.
    """
    loaded = load_class(ObserverEntry, selector, Observer, "Observer", ObserverConfig)
    try:
        _check_hooks(loaded.cls)
    except ObserverError as error:
        raise refusal(loaded.entry, error) from None
    return loaded


def _check_hooks(observer: type[Observer]) -> None:
    hooks = getattr(observer, "hooks", ())
    if not hooks or not isinstance(hooks, tuple):
        raise ObserverError(f"its class {observer.__name__} names no hooks; write such as hooks = ('calibrate',)")
    for hook in hooks:
        if hook not in OBSERVED:
            raise ObserverError(f"there is no hook {hook} to observe{did_you_mean(str(hook), OBSERVED)}")
