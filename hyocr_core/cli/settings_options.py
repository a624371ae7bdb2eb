"""Options of the commands that read pages, from the keys of an evaluation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, get_args

import click

from hyocr_core.cli import completion
from hyocr_core.settings.eval_config import EvalConfig

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

Command = TypeVar("Command", bound=Callable[..., Any])

FLAGS = {"rounded": ("--rtn",), "baseline": ("--baseline", "--original")}
"""Options that are not called as their key, or not only so."""

PLUGINS = tuple(key for key, field in EvalConfig.model_fields.items() if field.default_factory is dict)
"""Keys that are plugins with options, which options add to."""

TYPES = {int: int, float: float, Path: click.Path(path_type=Path)}

METAVARS = {"gate": "BOUNDS", "metrics": "NAME[:KEY=VALUE]", "backend_options": "NAME:KEY=VALUE"}

OFFERED = {
    "task": completion.tasks,
    "metrics": completion.metrics,
    **dict.fromkeys(("data", "baseline"), completion.paths),
}
"""What a shell offers."""


def settings_options(*keys: str) -> Callable[[Command], Command]:
    """An option for each of these keys of EvalConfig; what is not given is None, or an empty tuple."""

    def add(command: Command) -> Command:
        for key in reversed(keys):
            how = _how(key, EvalConfig.model_fields[key])
            command = click.option(*FLAGS.get(key, (f"--{key.replace('_', '-')}",)), key, **how)(command)
        return command

    return add


def key_help(key: str) -> str:
    """What the settings say of a key, as a sentence."""
    said = EvalConfig.model_fields[key].description or ""
    return f"{said[:1].upper()}{said[1:]}."


def _how(key: str, field: FieldInfo) -> dict[str, Any]:
    text = key_help(key)
    if field.annotation is bool:
        return {"is_flag": True, "default": None, "help": text}
    shown = f"  [default: {field.default}]" if isinstance(field.default, str | int | float) else ""
    kinds = {field.annotation, *get_args(field.annotation)}
    return {
        "help": text + shown,
        "metavar": METAVARS.get(key),
        "multiple": key in PLUGINS,
        "shell_complete": OFFERED.get(key),
        "type": next((click_type for kind, click_type in TYPES.items() if kind in kinds), str),
    }
