"""The command `hyocr`: finds the command to run and renders errors. Importing this module imports no command."""

from __future__ import annotations

import errno
import importlib
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from typing import Any, NoReturn

import click

from hyocr_core._version import __version__
from hyocr_core.cli.common import COMMAND_LINE, VERBOSE, tell, verbose_option
from hyocr_core.cli.status_line import StatusLine
from hyocr_core.cli.streams import own_streams
from hyocr_core.errors import BadInputError, HyocrError, RunError
from hyocr_core.progress import watched
from hyocr_core.ranks.launch import hush, launch
from hyocr_core.shown import LONGEST, message, visible

COMMANDS = {
    "quant": ("hyocr_core.cli.quant:quant", "Quantize a checkpoint."),
    "verify": ("hyocr_core.cli.verify:verify", "Check what was written."),
    "read": ("hyocr_core.cli.read:read", "Show what a checkpoint reads on your pages."),
    "eval": ("hyocr_core.cli.eval:eval_command", "Measure how well a checkpoint reads."),
    "bench": ("hyocr_core.cli.bench:bench", "Measure how fast a checkpoint is served."),
    "report": ("hyocr_core.cli.report:report", "Write a page on a checkpoint: how small, how good, where it errs."),
    "compare": ("hyocr_core.cli.compare:compare", "Put several quantizations of one model beside each other."),
    "sweep": ("hyocr_core.cli.sweep:sweep", "Quantize in many ways and see which are worth having."),
    "search": ("hyocr_core.cli.search:search", "Choose method and bits for every layer under a budget."),
    "push": ("hyocr_core.cli.push:push", "Upload a quantized checkpoint to the hub."),
    "methods": ("hyocr_core.cli.methods:methods", "List, explain and check the installed methods."),
    "observers": ("hyocr_core.cli.observers:observers", "List and explain the installed observers."),
    "doctor": ("hyocr_core.cli.doctor:doctor", "Say what this machine can do, and what is broken."),
}

FIRST_WORD = 10.0
"""Seconds that the first of several processes has to end by itself, for a reason that is everyone's."""

DIVIDED = ("quant", "eval", "sweep")
"""Commands that several processes share the work of."""


class LazyGroup(click.Group):
    """Imports a command when it is called, and shows a HyocrError as one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """The names of the commands, in the order of a user's work."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import the command `cmd_name` and let it take `-v` too."""
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        if VERBOSE not in (parameter.name for parameter in command.params):
            command.params.append(verbose_option())
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; one that is misspelt is refused with what may be meant."""
        meant = get_close_matches(args[0], COMMANDS, n=1)
        if args[0] not in COMMANDS and meant:
            ctx.fail(f"No such command '{args[0]}'. (Did you mean '{meant[0]}'?)")
        if args[0] in COMMANDS and args[0] not in DIVIDED and launch() is not None:
            raise BadInputError(
                f"hyocr {args[0]} is work for one process, leave torchrun out; {_words(DIVIDED)} divide theirs"
            )
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """List the commands from `COMMANDS`, so that `hyocr --help` imports none."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in COMMANDS.items()])

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Keep the whole command line for the commands to record."""
        given = list(args)
        with _harmless():
            context = super().make_context(info_name, args, parent, **extra)
        context.meta[COMMAND_LINE] = given
        return context

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; a HyocrError and Ctrl-C end it with one line, anything else keeps its traceback.

        A name that no file can have ends it so too, wherever it is met.
        """
        try:
            with _harmless(), watched(StatusLine()):
                return super().invoke(ctx)
        except HyocrError as error:
            _fail(ctx, error, error)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            _fail(ctx, BadInputError(f"{error.filename}: the name is too long"), error)
        except KeyboardInterrupt as interrupt:
            _stop(ctx, str(interrupt) or "interrupted", 130)

    def main(self, *args: Any, **options: Any) -> Any:
        """Run the command on streams that may break; of processes that torchrun started only the first speaks."""
        here = launch()
        hushed = here is not None and not here.first
        if hushed:
            hush()
        own_streams()
        try:
            return super().main(*args, **options)
        except RunError as error:
            # Only --help and --version print outside of a command.
            tell(f"hyocr: error: {error}")
            sys.exit(error.exit_code)
        except SystemExit as end:
            if hushed and end.code:
                # torchrun ends all when it sees one end, and the first is to say why before.
                time.sleep(FIRST_WORD)
            raise


def _words(names: Sequence[str]) -> str:
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _fail(ctx: click.Context, error: HyocrError, cause: Exception) -> NoReturn:
    if ctx.meta.get(VERBOSE):
        click.echo(visible("".join(traceback.format_exception(cause))), err=True, nl=False)
    _stop(ctx, f"error: {error}", error.exit_code)


def _stop(ctx: click.Context, why: str, exit_code: int) -> NoReturn:
    tell(f"hyocr: {why}")
    ctx.exit(exit_code)


@contextmanager
def _harmless() -> Iterator[None]:
    """Say what click finds wrong with the arguments, which it repeats, as everything else is said."""
    try:
        yield
    except click.exceptions.NoArgsIsHelpError:
        raise
    except click.UsageError as error:
        # Behind the "Error: " that click puts in front.
        raise click.UsageError(message(error.format_message(), LONGEST - 7), error.ctx) from error


@click.group(
    "hyocr",
    cls=LazyGroup,
    params=[verbose_option()],
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Plugins add methods: pip install hyocr-plugin-gptq",
)
@click.version_option(__version__, prog_name="hyocr")
def main() -> None:
    """Make HunyuanOCR small and fast, and prove that it still reads.

    \b
    hyocr quant --method gptq --model tencent/HunyuanOCR --output HunyuanOCR-int4
    hyocr verify HunyuanOCR-int4 --original tencent/HunyuanOCR
    hyocr eval HunyuanOCR-int4 --data pages/ --baseline tencent/HunyuanOCR
    """
