"""`hyocr compare`: several quantizations of one model beside each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from hyocr_core.cli.common import print_json, print_sentences, print_table, say, stdout_width, tell
from hyocr_core.errors import BadInputError
from hyocr_core.wording import LANGUAGES, Language, speaking

if TYPE_CHECKING:
    from hyocr_core.evaluation.recorded.comparison import Several

Command = TypeVar("Command", bound=Callable[..., Any])


def lang_option(command: Command) -> Command:
    """`--lang`."""
    return click.option(
        "--lang", type=click.Choice(LANGUAGES), default="en", help="Language of the page: English or Chinese."
    )(command)


def csv_option(command: Command) -> Command:
    """`--csv FILE`."""
    return click.option(
        "--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), help="Write one row for each there."
    )(command)


@click.command(epilog="Exit codes: 0 done, 2 bad input.")
@click.argument("checkpoints", nargs=-1, required=True, metavar="A B [C ...]", type=click.Path(path_type=Path))
@click.option("--cross-runtime", is_flag=True, help="Compare also what different runtimes, or other decoding, gave.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON on stdout.")
@csv_option
@click.option(
    "--page", type=click.Path(path_type=Path, dir_okay=False), help="Draw it as an HTML page that needs nothing else."
)
@lang_option
def compare(
    checkpoints: tuple[Path, ...],
    cross_runtime: bool,
    as_json: bool,
    csv_file: Path | None,
    page: Path | None,
    lang: Language,
) -> None:
    """Put several quantizations of one model beside each other, and say which one to take.

    A, B and C are folders that `hyocr quant` wrote, evaluated on the same pages with `hyocr eval --record`; nothing is
    read again. Recommended is the smallest that loses nothing measurable, and of equal sizes the one closest to the
    baseline by KL. Sizes within a percent are equal, and CER counts only where its paired interval leaves out 0. The
    marked are beaten by no other. `hyocr report A --compare B` shows the same on A's page.

    \b
    hyocr compare HunyuanOCR-int4 HunyuanOCR-fp8
    """
    if len(checkpoints) < 2:
        raise BadInputError("a comparison needs two checkpoints or more")
    # Imported here, for a quick --help.
    from hyocr_core.evaluation.recorded.comparison import side_by_side
    from hyocr_core.evaluation.recorded.csv_file import check_comparison_csv, write_comparison_csv
    from hyocr_core.report.comparison_page import check_comparison_page, write_comparison_page

    if csv_file is not None:
        check_comparison_csv(csv_file)
    if page is not None:
        check_comparison_page(page)
    found = side_by_side(checkpoints, cross_runtime=cross_runtime)
    if csv_file is not None:
        write_comparison_csv(found, csv_file)
    if page is not None:
        with speaking(lang):
            told = side_by_side(checkpoints, cross_runtime=cross_runtime)
            tell(f"page {write_comparison_page(told, page)}")
    if as_json:
        print_json(found.model_dump(mode="json"))
    else:
        print_several(found)


def print_several(found: Several) -> None:
    """The table, and under it which one to take."""
    from hyocr_core.terminal.comparison_table import heading, several_tables

    print_sentences(heading(found))
    for table in several_tables(found, stdout_width()):
        print_table(table)
        say()
    print_sentences(found.recommendation.text)
