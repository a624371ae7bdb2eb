"""What the user gave, a YAML file and flags, becomes the configuration of one run."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, NamedTuple

from hyocr_core.contract.config import parse_config, show
from hyocr_core.errors import ConfigError
from hyocr_core.settings.angelslim import is_reference, our_method, translate
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.shared import plugins_by_name
from hyocr_core.settings.yaml_file import parse_yaml, read_yaml

_PLUGIN = re.compile(r"(?P<name>[^=]+?)(:(?P<option>[^:=]+=.*))?", re.DOTALL)


class Merged(NamedTuple):
    """notes: one line for each key of the file that is honoured in another way than it says."""

    run: RunConfig
    notes: tuple[str, ...]


def merge_run_config(
    file: Path | None,
    flags: Mapping[str, Any],
    overrides: Sequence[str],
    observers: Sequence[str] = (),
    metrics: Sequence[str] = (),
    layers: Sequence[str] = (),
) -> Merged:
    """Make the configuration of a run from a YAML file, flags and arguments of `-o`, `--observe`, `--metrics`, ...

    The file has RunConfig's keys or is in the schema of `hyocr_core.settings.angelslim`, whose names of methods are
    understood everywhere. A flag wins over the file unless it is None; an override is set in `options`. Raises
    ConfigError.
    """
    where = f"run configuration ({file})" if file else "run configuration"
    data = load_yaml(file) if file else {}
    given = {key: value for key, value in flags.items() if value is not None}
    notes: tuple[str, ...] = ()
    if file and is_reference(data):
        data, notes = translate(data, where, file.stem, given)
    data = data | given
    options = data.get("options")
    data["options"] = {} if options is None else deepcopy(options)
    fixed = _name_method(data)
    if "method" in given and isinstance(data["options"], dict):
        data["options"] = {key: value for key, value in data["options"].items() if key not in fixed}
    for override in overrides:
        _set_option(data["options"], override)
    _fix_options(data["options"], fixed, where)
    if observers:
        data["observers"] = with_plugins(data.get("observers"), observers, "--observe")
    if metrics:
        data["metrics"] = with_plugins(data.get("metrics"), metrics, "--metrics")
    if layers:
        data["overrides"] = _with_layers(data.get("overrides"), layers)
    return Merged(parse_config(RunConfig, data, where), notes)


def load_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping; raises ConfigError as `read_yaml`, and for what is no mapping."""
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ConfigError(f"{path}: line 1: must be a mapping of keys to values, not {show(data)}")
    return data


def parse_override(text: str, flag: str = "-o") -> tuple[str, Any]:
    """Split `key=value` given with `flag`; the value is a YAML scalar or list, the key may be dotted.

    Raises ConfigError.
    """
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals or not all(key.split(".")):
        raise ConfigError(f"{flag} {text}: write key=value, such as -o group_size=64")
    # A glob such as `*.q_proj` would be an alias in YAML, where it means nothing on its own.
    return key, value if value.startswith("*") else parse_yaml(value, f"{flag} {text}")


def with_plugins(given: Any, arguments: Sequence[str], flag: str) -> Any:
    """Add what the arguments of `flag`, each `NAME,NAME` or `NAME:KEY=VALUE`, name to the plugins of the file."""
    given = plugins_by_name(given)
    if not isinstance(given, dict | None):
        return given
    plugins: dict[str, Any] = deepcopy(given) if given else {}
    for argument in arguments:
        for part in [argument] if "=" in argument else argument.split(","):
            # NAME may be distribution:name, and a value may hold colons.
            found = _PLUGIN.fullmatch(part.strip())
            if found is None:
                raise ConfigError(f"{flag} {argument}: write NAME or NAME:KEY=VALUE, such as dump-stats:folder=stats")
            options = plugins.setdefault(found["name"], {})
            if found["option"] is not None and isinstance(options, dict):
                key, value = parse_override(found["option"], flag)
                options[key] = value
    return plugins


def _with_layers(given: Any, arguments: Sequence[str]) -> Any:
    """Put what each `LAYERS:KEY=VALUE` says before the overrides of the file, so that it counts first."""
    if not isinstance(given, dict | None):
        return given
    overrides: dict[str, dict[str, Any]] = {}
    for argument in arguments:
        pattern, colon, option = argument.partition(":")
        if not colon or not pattern:
            raise ConfigError(f"--override {argument}: write LAYERS:KEY=VALUE, such as '*.down_proj:group_size=64'")
        key, value = parse_override(option, f"--override {pattern}:")
        overrides.setdefault(pattern, {})[key] = value
    return overrides | {pattern: options for pattern, options in (given or {}).items() if pattern not in overrides}


def _name_method(data: dict[str, Any]) -> Mapping[str, str]:
    """Put our name in the place of the reference's, and return the options that its name stands for."""
    if not isinstance(data.get("method"), str):
        return {}
    data["method"], fixed = our_method(data["method"])
    return fixed


def _fix_options(options: Any, fixed: Mapping[str, str], where: str) -> None:
    for key, value in fixed.items():
        if not isinstance(options, dict):
            return
        if options.setdefault(key, value) != value:
            raise ConfigError(
                f"{where}: options.{key} = {show(options[key])} contradicts the method's name, which says {value}"
            )


def _set_option(options: Any, override: str) -> None:
    key, value = parse_override(override)
    *parents, last = key.split(".")
    for parent in parents:
        options = options.setdefault(parent, {}) if isinstance(options, dict) else None
    if not isinstance(options, dict):
        raise ConfigError(f"-o {override}: {'.'.join(['options', *parents])} is not a mapping")
    options[last] = value
