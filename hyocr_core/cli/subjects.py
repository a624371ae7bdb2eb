"""What commands have in common: the model, an argument or `--model`; going on, or starting again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import click

from hyocr_core.cli import completion

Command = Callable[..., Any]


def with_model(help_text: str, *, required: bool = False, name: str = "MODEL") -> Callable[[Command], Command]:
    """Let a command take its model as an argument and as `--model` alike; it gets it as `model`."""

    def add(command: Command) -> Command:
        @wraps(command)
        def merged(*args: Any, named: str | None, model: str | None, **given: Any) -> Any:
            found = assigned([] if named is None else [named], {name: model}, required=required)
            return command(*args, model=found[name], **given)

        option = click.option("--model", shell_complete=completion.paths, help=help_text)
        metavar = name if required else f"[{name}]"
        argument = click.argument("named", required=False, metavar=metavar, shell_complete=completion.paths)
        return argument(option(merged))

    return add


def resume_option(help_text: str, *old: str) -> Callable[[Command], Command]:
    """`--resume/--fresh` as `resume`: True, False, or None where neither is given. old: what `--fresh` was called."""
    return click.option("resume", "--resume/--fresh", *(f" /{each}" for each in old), default=None, help=help_text)


def assigned(
    arguments: Sequence[str], options: Mapping[str, str | None], *, required: bool = True
) -> dict[str, str | None]:
    """Name -> what its option says, or else the next argument; click's UsageError for too much, or too little."""
    remaining = list(arguments)
    found = {name: remaining.pop(0) if said is None and remaining else said for name, said in options.items()}
    if remaining:
        given = next(iter(option for option in options.values() if option is not None), None)
        hint = "" if given is None else f"; an option says {given} already"
        raise click.UsageError(f"Got unexpected extra argument ({remaining[0]}){hint}")
    missing = [name for name, said in found.items() if said is None]
    if required and missing:
        raise click.UsageError(f"Missing argument '{missing[0]}'.")
    return found
