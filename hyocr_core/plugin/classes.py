"""Plugins that are a class with a config, such as observers, metrics and backends: import one and validate it."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from hyocr_core.contract.config import parse_config
from hyocr_core.errors import BadInputError, ConfigError
from hyocr_core.plugin import entry_points
from hyocr_core.plugin.entry_points import PluginEntry
from hyocr_core.plugin.registry import check_api_version, check_config_class

Entry = TypeVar("Entry", bound=PluginEntry)
Plugin = TypeVar("Plugin")


@dataclass(frozen=True)
class Loaded(Generic[Entry, Plugin]):
    """A class that keeps the contract of its kind, with the entry point that named it."""

    entry: Entry
    cls: type[Plugin]

    def config(self, options: Mapping[str, Any]) -> Any:
        """Validate its options; raises ConfigError naming the key and what is allowed."""
        try:
            return parse_config(self.cls.config_class, options, "options")  # type: ignore[attr-defined]
        except ConfigError as error:
            raise ConfigError(f"{self.entry}: {error}") from error.__cause__


def load_class(
    kind: type[Entry], selector: str, base: type[Any], public: str, config_base: type[BaseModel] | None
) -> Loaded[Entry, Any]:
    """Import the one class that `selector`, `name` or `distribution:name`, picks and validate what all kinds share.

    base: what it derives from, which `public` names. config_base: what its config derives from; None for a kind that
    has no config of its own.
    Raises the kind's error: unknown, offered twice, fails to import, other API version, or the contract is not kept.
    """
    return load_entry(entry_points.choose(kind, selector), base, public, config_base)


def load_entry(entry: Entry, base: type[Any], public: str, config_base: type[BaseModel] | None) -> Loaded[Entry, Any]:
    """The same of an entry point that is chosen already."""
    found = entry_points.load(entry)
    try:
        return Loaded(entry, _checked(found, entry, base, public, config_base))
    except entry.error as error:
        raise refusal(entry, error) from error.__cause__


def refusal(entry: PluginEntry, error: BadInputError) -> BadInputError:
    """The same error, beginning with whose it is."""
    return entry.error(f"{entry}: {error}")


def _checked(
    found: Any, entry: PluginEntry, base: type[Any], public: str, config_base: type[BaseModel] | None
) -> type[Any]:
    if not (inspect.isclass(found) and issubclass(found, base)):
        raise entry.error(f"{entry.value} is no class that derives from hyocr_core.{public}")
    plugin: type[Any] = found
    name = plugin.__name__
    if not hasattr(plugin, "api_version"):
        raise entry.error(f"its class {name} does not say which plugin API it speaks; write api_version = 1")
    check_api_version(plugin.api_version, entry)
    missing = sorted(getattr(plugin, "__abstractmethods__", ()))
    if missing:
        near = get_close_matches(missing[0], [key for key in vars(plugin) if not key.startswith("_")], n=1)
        raise entry.error(f"its class {name} has no method {missing[0]}" + (f"; rename {near[0]}" if near else ""))
    if config_base is not None:
        check_config_class(plugin.config_class, config_base, entry)
    return plugin
