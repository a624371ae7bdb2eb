"""`hyocr doctor`: what this machine can do, and what is broken."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyocr_core.cli.common import loading, print_json, print_table, say
from hyocr_core.cli.serving_options import NAMES, Asked, print_serving, serving_options
from hyocr_core.cli.subjects import with_model
from hyocr_core.errors import ConfigError, RunError

if TYPE_CHECKING:
    from hyocr_core.doctor.findings import Examination
    from hyocr_core.models.fitting import ServingMemory


@click.command(
    epilog="Exit codes: 0 nothing is broken, 1 something is: a package that hyocr needs is missing, too old or cannot "
    "be imported, no method works, a cache cannot be written, --python has no vLLM, or --fits is answered with no."
)
@click.option("--python", type=click.Path(path_type=Path), help="Interpreter to look for vLLM in.  [default: this one]")
@with_model("Checkpoint folder or model of the hub whose serving memory to tell.")
@serving_options
@click.option("--json", "as_json", is_flag=True, help="Print everything as JSON on stdout.")
@click.pass_context
def doctor(
    context: click.Context,
    /,
    model: str | None,
    python: Path | None,
    asked: Asked,
    as_json: bool,
) -> None:
    """Say what this machine can do, and what is broken.

    Shows versions, plugins, processor, GPU, memory, which formats load in which runtime, caches and disks, and one line
    of advice for each problem. Loads no model and writes nothing. With MODEL, a checkpoint folder or a model of the
    hub, quantized or not, also the memory that serving it takes in each runtime; --fits asks whether there is enough.

    \b
    hyocr doctor
    hyocr doctor HunyuanOCR-int4 --fits 8GB --pages-at-once 4
    hyocr doctor --python /opt/vllm/bin/python
    """
    try:
        loading()
        # Imported here: torch takes seconds, and --help must not wait for it.
        from hyocr_core.doctor.examine import examine

        memory = _memory(model, asked)
        found = examine(python)
    except ImportError as error:
        raise RunError(f"a package is missing ({error}): pip install --force-reinstall hyocr-core") from error
    if as_json:
        serving = {} if memory is None else {"serving": memory.model_dump(mode="json")}
        print_json(found.model_dump(mode="json") | serving)
    else:
        _print(found)
        if memory is not None:
            print_serving(memory)
    context.exit(1 if found.broken or (memory is not None and memory.refused) else 0)


def _memory(model: str | None, asked: Asked) -> ServingMemory | None:
    limit = asked.limit
    if model is None:
        if asked:
            raise ConfigError(f"{NAMES} ask about a model; name it")
        return None
    from hyocr_core.checkpoint.resolve import resolve_model
    from hyocr_core.models.fitting import serving_memory
    from hyocr_core.models.servable import open_servable

    return serving_memory(open_servable(resolve_model(model).folder), asked.load, limit)


def _print(found: Examination) -> None:
    from hyocr_core.doctor.show import heading, problem_lines, tables

    for line in heading(found):
        say(line)
    for table in tables(found):
        say()
        print_table(table)
    say()
    for line, colour in problem_lines(found):
        say(line, colour=colour)
