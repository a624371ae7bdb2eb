"""`hyocr methods`: list, explain, check and begin methods. Imports neither torch nor, to list, any plugin."""

from __future__ import annotations

import json
import shlex
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from hyocr_core.cli import completion
from hyocr_core.cli.common import print_json, print_table, say, tell
from hyocr_core.plugin.entry_points import fault_of
from hyocr_core.plugin.registry import MethodEntry, installed_methods, load_method

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")

SLOW_IMPORT = 1.0
"""Seconds after which the import of a plugin is remarked on: `hyocr methods show` waits for it."""

NO_METHODS = (
    "no method is installed; try: pip install hyocr-plugin-gptq, or in a clone of the repository ./plugins/gptq"
)


@click.group(invoke_without_command=True)
@json_option
@click.pass_context
def methods(context: click.Context, as_json: bool) -> None:
    """List the installed methods; imports none of them.

    \b
    hyocr methods
    hyocr methods show gptq
    hyocr methods check
    hyocr methods new my-method
    """
    if context.invoked_subcommand is not None:
        if as_json:
            raise click.UsageError(f"put --json behind {context.invoked_subcommand}")
        return
    entries = installed_methods()
    if as_json:
        print_json([asdict(entry) for entry in entries])
    else:
        print_rows(("name", "distribution", "version", "status", "summary"), [_list_row(entry) for entry in entries])


@methods.command()
@click.argument("name", shell_complete=completion.methods)
@json_option
def show(name: str, as_json: bool) -> None:
    """Show the options of a method: key, type, default, meaning.

    NAME is a method, or distribution:method. With --json, prints the JSON Schema.

    \b
    hyocr methods show gptq
    """
    schema = load_method(name).spec.config_class.model_json_schema()
    if as_json:
        print_json(schema)
    else:
        print_rows(("key", "type", "default", "meaning"), list(schema_rows(schema, schema)))


@methods.command()
@json_option
@click.pass_context
def check(context: click.Context, as_json: bool) -> None:
    """Import each method and say what is broken and why; exit 1 if any is.

    \b
    hyocr methods check
    """
    results = [(entry, *_examine(entry)) for entry in installed_methods()]
    if as_json:
        found = ({"problem": problem, "remarks": remarks} for _, problem, remarks in results)
        print_json([asdict(entry) | verdict for (entry, *_), verdict in zip(results, found, strict=True)])
    else:
        rows = [
            (entry.name, entry.distribution, entry.version, problem or ", but ".join(["ok", *remarks]))
            for entry, problem, remarks in results
        ]
        print_rows(("name", "distribution", "version", "verdict"), rows)
    context.exit(1 if any(problem for _, problem, _ in results) else 0)


@methods.command()
@click.argument("name")
@click.option("--output", type=click.Path(path_type=Path), help="Folder to write.  [default: hyocr-plugin-NAME]")
def new(name: str, output: Path | None) -> None:
    """Write a new method as a complete distribution: code, tests, README and CI.

    It begins as round to nearest (RTN), works at once and passes the conformance kit; put your algorithm in its place.

    \b
    hyocr methods new my-method
    pip install -e 'hyocr-plugin-my-method[test]'
    pytest hyocr-plugin-my-method
    """
    from hyocr_core.plugin.scaffold import distribution_name, write_plugin

    folder = output or Path(distribution_name(name))
    write_plugin(name, folder)
    say(folder)
    quoted = shlex.quote(str(folder))
    tell(f"next: pip install -e {shlex.quote(f'{folder}[test]')} && pytest {quoted}")


def _examine(entry: MethodEntry) -> tuple[str | None, list[str]]:
    """Why `--method NAME` would fail, or None, and what works but should be mended."""
    start = time.perf_counter()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DeprecationWarning)
        problem = fault_of(entry, load_method)
    seconds = time.perf_counter() - start
    remarks = [text.removeprefix(f"{entry}: ") for text in (str(w.message) for w in caught) if str(entry) in text]
    if seconds > SLOW_IMPORT:
        remarks.append(f"importing it takes {seconds:.1f} s: import what is slow inside the hooks")
    return problem, remarks


def _list_row(entry: MethodEntry) -> tuple[str, ...]:
    status = "conflict" if entry.conflict else "installed"
    return entry.name, entry.distribution, entry.version, status, entry.summary


def print_rows(titles: Sequence[str], rows: Sequence[Sequence[str]], nothing: str = NO_METHODS) -> None:
    """Print a table on stdout, or `nothing` on stderr when there are no rows."""
    from rich.table import Table

    if not rows:
        tell(nothing)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        # The last column takes the wrapping: names and versions must stay whole to be copied.
        table.add_column(title, no_wrap=title in ("name", "key", "version", "status"), overflow="fold")
    for row in rows:
        table.add_row(*row)
    print_table(table)


def schema_rows(model: Mapping[str, Any], schema: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, ...]]:
    """Yield key, type, default and meaning of each option; those of a nested model under dotted keys."""
    for key, field in model["properties"].items():
        nested = _definition(field, schema)
        if nested is not None and "properties" in nested:
            yield from schema_rows(nested, schema, f"{prefix}{key}.")
            continue
        default = "required" if key in model.get("required", ()) else _value(field.get("default", {}))
        yield f"{prefix}{key}", _type(field, schema), default, field["description"]


def _definition(field: Mapping[str, Any], schema: Mapping[str, Any]) -> Mapping[str, Any] | None:
    definition: Mapping[str, Any] | None = schema.get("$defs", {}).get(field.get("$ref", "").rpartition("/")[2])
    return definition


def _type(field: Mapping[str, Any], schema: Mapping[str, Any]) -> str:
    """Say in a few words what a JSON Schema allows."""
    field = _definition(field, schema) or field
    if "enum" in field or "const" in field:
        return " | ".join(_value(value) for value in field.get("enum", [field.get("const")]))
    if "anyOf" in field:
        return " | ".join(_type(branch, schema) for branch in field["anyOf"])
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}), schema)}"
    return f"{field.get('type', 'any')} {', '.join(_bounds(field))}".rstrip()


def _bounds(field: Mapping[str, Any]) -> Iterator[str]:
    signs = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    return (f"{sign} {field[key]}" for key, sign in signs.items() if key in field)


def _value(value: Any) -> str:
    """A value as YAML spells it."""
    return value if isinstance(value, str) and value else json.dumps(value)
