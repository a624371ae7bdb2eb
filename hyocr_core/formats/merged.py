"""One quantization_config of the config groups that several methods wrote, each for its own linears."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from hyocr_core.errors import ConfigError
from hyocr_core.formats.compressed import METHOD, MIXED, whole_config
from hyocr_core.formats.rules import EVERY
from hyocr_core.formats.settings_read import mapping, name_list

_OF_ALL = ("quant_method", "format", "quantization_status", "ignore", "config_groups")
"""Keys that are written anew; the others hold for all groups."""


class Written(NamedTuple):
    """What one method says of its linears. who: how an error calls it. names: the linears' in-memory names."""

    who: str
    config: Mapping[str, Any]
    names: tuple[str, ...]


def merged_config(parts: Iterable[Written], ignored: Iterable[str]) -> dict[str, Any]:
    """Return the quantization_config of a checkpoint of all of these linears; ignored: those of none, in memory.

    Raises ConfigError naming the methods whose formats cannot share a checkpoint.
    """
    parts = tuple(parts)
    groups: list[dict[str, Any]] = []
    settings: dict[str, Any] = {}
    for part in parts:
        _check_shares(part)
        for group in _named_groups(part):
            _add(groups, group)
        for key in part.config.keys() - set(_OF_ALL):
            if settings.setdefault(key, part.config[key]) != part.config[key]:
                raise ConfigError(
                    f"{part.who}: {key} of config.json is for all layers, and another method wrote it too"
                )
    kinds = {group["format"] for group in groups}
    numbered = {f"group_{index}": group for index, group in enumerate(groups)}
    return whole_config(kinds.pop() if len(kinds) == 1 else MIXED, numbered, settings, ignored)


def _check_shares(part: Written) -> None:
    method = part.config.get("quant_method")
    if method != METHOD:
        raise ConfigError(
            f"{part.who} writes {method}, which has no room for layers of other methods or options; use its option "
            f"format: {METHOD}, if it has that"
        )


def _named_groups(part: Written) -> Iterable[dict[str, Any]]:
    """Its groups, which say their format and name their linears: `Linear` would take those of others too."""
    for key in (found := mapping(part.config, "config_groups")):
        group = mapping(found, key)
        targets = name_list(group, "targets") or ()
        names = list(part.names) if EVERY in targets else list(targets)
        kind = part.config.get("format") if group.get("format") is None else group["format"]
        yield {**group, "targets": names, "format": kind}


def _add(groups: list[dict[str, Any]], group: dict[str, Any]) -> None:
    """Put the linears into the group that says the same, if there is one."""
    for other in groups:
        if {**other, "targets": None} == {**group, "targets": None}:
            other["targets"] += group["targets"]
            return
    groups.append(group)
