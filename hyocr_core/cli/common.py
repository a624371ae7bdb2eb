"""What the commands share: where they print, and how. Importing this module imports no rich."""

from __future__ import annotations

import json
import shutil
import sys
from functools import cache, partial
from textwrap import wrap
from typing import TYPE_CHECKING, Any

import click

from hyocr_core.progress import doing, idle
from hyocr_core.shown import message

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from hyocr_core.checkpoint.quant_report import VerdictRecord

VERBOSE = "verbose"
COMMAND_LINE = "hyocr_core.command_line"


@cache
def stderr_console() -> Console:
    """The console for progress and tables of a run: on stderr, coloured only on a terminal and without NO_COLOR."""
    from hyocr_core.terminal.console import PlainConsole

    return PlainConsole(stderr=True)


def loading() -> None:
    """Say that the libraries are imported which take seconds."""
    doing("loading torch and transformers")


def say(text: object = "", *, err: bool = False, colour: str | None = None) -> None:
    """Print one line, as short and as harmless as every message."""
    idle()
    click.secho(message(str(text)), err=err, fg=colour)


tell = partial(say, err=True)
"""Prints a line on stderr."""


def print_json(data: Any) -> None:
    """Print `data` on stdout as JSON, in ASCII so that no locale can refuse it."""
    idle()
    click.echo(json.dumps(data, indent=2, allow_nan=False))


def stdout_width() -> int:
    """Columns of the terminal; of a pipe so many that no row is broken."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else 10_000


def print_table(table: Table) -> None:
    """Print a table on stdout: as wide as the terminal; in a pipe one line for each row, without colours."""
    from hyocr_core.terminal.console import PlainConsole
    from hyocr_core.terminal.fitting_tables import fitted

    console = PlainConsole(width=stdout_width())
    with console.capture() as capture:
        console.print(fitted(table, console, console.width))
    idle()
    for line in capture.get().splitlines():
        click.echo(line.rstrip())


def print_sentences(text: str) -> None:
    """Print a paragraph on stdout, broken between words where a terminal is narrow."""
    idle()
    lines = wrap(message(text, 10_000), stdout_width(), break_long_words=False, break_on_hyphens=False)
    for line in lines:
        click.echo(line)


def say_verdict(verdict: VerdictRecord, *, err: bool = False) -> None:
    """Print what an evaluation comes to, and what to beware of; last, since it is what is to be remembered."""
    say(err=err)
    if err:
        say(verdict.text, err=True)
    else:
        print_sentences(verdict.text)
    for warning in verdict.warnings:
        say(f"warning: {warning}", err=err, colour="yellow")


def is_verbose() -> bool:
    """Whether `-v` was given."""
    return bool(click.get_current_context().meta.get(VERBOSE))


def command_line() -> list[str]:
    """What the user typed, from `hyocr` on."""
    return ["hyocr", *click.get_current_context().meta[COMMAND_LINE]]


def _remember(context: click.Context, _parameter: click.Parameter, verbose: bool) -> None:
    if verbose:
        context.meta[VERBOSE] = True


def verbose_option() -> click.Option:
    """`-v`, accepted before and after the name of a command."""
    return click.Option(
        [VERBOSE, "-v", "--verbose"],
        is_flag=True,
        envvar="HYOCR_DEBUG",
        expose_value=False,
        callback=_remember,
        help="Show tables whole, and the traceback of an error; HYOCR_DEBUG=1 does the same.",
    )
