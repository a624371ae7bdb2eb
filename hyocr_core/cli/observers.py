"""`hyocr observers`: list and explain the installed observers."""

from __future__ import annotations

from dataclasses import asdict
from inspect import getdoc

import click

from hyocr_core.cli import completion
from hyocr_core.cli.common import print_json
from hyocr_core.cli.methods import print_rows, schema_rows
from hyocr_core.plugin.entry_points import fault_of
from hyocr_core.plugin.observers import ObserverEntry, installed_observers, load_observer

NO_OBSERVERS = "no observer is installed, not even those of hyocr-core: install that again"


@click.command(epilog="Exit codes: 0 done, 1 an observer is broken, 2 bad input.")
@click.argument("name", required=False, shell_complete=completion.observers)
@click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout; of NAME its JSON Schema.")
@click.pass_context
def observers(context: click.Context, name: str | None, as_json: bool) -> None:
    """List the installed observers, or show the options of NAME.

    An observer watches the hooks of a run and can change nothing of it. One that is installed does nothing until a run
    names it.

    \b
    hyocr observers
    hyocr observers dump-stats
    hyocr quant ... --observe dump-stats:folder=stats
    """
    if name is None:
        context.exit(_list(as_json=as_json))
    loaded = load_observer(name)
    schema = loaded.cls.config_class.model_json_schema()
    if as_json:
        print_json(schema)
    else:
        rows = list(schema_rows(schema, schema)) if "properties" in schema else []
        print_rows(("key", "type", "default", "meaning"), rows, f"{loaded.entry} has no options")


def _list(*, as_json: bool) -> int:
    results = [(entry, *_explain(entry)) for entry in installed_observers()]
    if as_json:
        print_json([{**asdict(entry), "summary": summary, "problem": problem} for entry, summary, problem in results])
    else:
        rows = [
            (entry.name, entry.distribution, entry.version, f"broken: {problem}" if problem else summary)
            for entry, summary, problem in results
        ]
        print_rows(("name", "distribution", "version", "summary"), rows, NO_OBSERVERS)
    return 1 if any(problem for _, _, problem in results) else 0


def _explain(entry: ObserverEntry) -> tuple[str, str | None]:
    """The first line of an observer's docstring, and why `--observe NAME` would fail."""
    problem = fault_of(entry, load_observer)
    if problem is not None:
        return "", problem
    return (getdoc(load_observer(entry.selector).cls) or entry.summary).partition("\n")[0], None
