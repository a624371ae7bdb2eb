"""`hyocr doctor`: what this machine can do, and what is broken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyocr_core.cli.common import one_line, print_json, print_table
from hyocr_core.errors import RunError

if TYPE_CHECKING:
    from hyocr_core.doctor.findings import Examination


@click.command(
    epilog="Exit codes: 0 nothing is broken, 1 something is: a package that hyocr needs is missing, too old or cannot "
    "be imported, no method works, a cache cannot be written, or --python has no vLLM."
)
@click.option("--python", type=click.Path(path_type=Path), help="Interpreter to look for vLLM in.  [default: this one]")
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on stdout.")
@click.pass_context
def doctor(context: click.Context, python: Path | None, as_json: bool) -> None:
    """Say what this machine can do, and what is broken.

    Shows versions, plugins, processor, GPU, memory, which formats load in which runtime, caches and disks, and one line
    of advice for each problem. Loads no model and writes nothing.

    \b
    hyocr doctor
    hyocr doctor --python /opt/vllm/bin/python
    """
    try:
        # Imported here: torch takes seconds, and --help must not wait for it.
        from hyocr_core.doctor.examine import examine

        found = examine(python)
    except ImportError as error:
        raise RunError(f"a package is missing ({error}): pip install --force-reinstall hyocr-core") from error
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        _print(found)
    context.exit(1 if found.broken else 0)


def _print(found: Examination) -> None:
    from hyocr_core.doctor.show import heading, problem_lines, tables

    for line in heading(found):
        click.echo(one_line(line))
    for table in tables(found):
        click.echo()
        print_table(table)
    click.echo()
    for line, colour in problem_lines(found):
        click.secho(one_line(line), fg=colour)
