"""`hyocr compare`: several quantizations of one model beside each other."""

from __future__ import annotations

from pathlib import Path

import click

from hyocr_core.cli.common import print_json, print_table, say
from hyocr_core.errors import BadInputError


@click.command(epilog="Exit codes: 0 done, 2 bad input.")
@click.argument("checkpoints", nargs=-1, required=True, metavar="A B [C ...]", type=click.Path(path_type=Path))
@click.option("--cross-runtime", is_flag=True, help="Compare also what different runtimes, or other decoding, gave.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON on stdout.")
def compare(checkpoints: tuple[Path, ...], cross_runtime: bool, as_json: bool) -> None:
    """Put several quantizations of one model beside each other.

    A, B and C are folders that `hyocr quant` wrote, evaluated on the same pages with `hyocr eval --record`; nothing is
    read again. Of those with a mark no other is both smaller and better. `hyocr report A --compare B` shows the same
    on a page.

    \b
    hyocr compare HunyuanOCR-int4 HunyuanOCR-fp8
    """
    if len(checkpoints) < 2:
        raise BadInputError("a comparison needs two checkpoints or more")
    # Imported here, for a quick --help.
    from hyocr_core.evaluation.recorded.comparison import side_by_side
    from hyocr_core.terminal.comparison_table import several_table

    found = side_by_side(checkpoints, cross_runtime=cross_runtime)
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_table(several_table(found))
        say()
        say(found.recommendation.text)
