"""`hyocr read`: what a checkpoint reads, to be looked at."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyocr_core.cli import completion
from hyocr_core.cli.common import loading, print_json, print_table, stderr_console, tell
from hyocr_core.cli.settings_options import PLUGINS, settings_options
from hyocr_core.cli.subjects import assigned
from hyocr_core.errors import CalibrationError, RunError
from hyocr_core.settings.eval_config import EvalConfig, merge_eval_config
from hyocr_core.shown import visible

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hyocr_core.evaluation.transcribe import Transcript
    from hyocr_core.terminal.pages_shown import PagesShown
    from hyocr_core.terminal.progress_bar import TerminalProgress

KEYS = (
    *(
        "num_samples",
        "seed",
        "task",
        "system",
        "max_pixels",
        "revision",
        "backend",
        "backend_options",
        "python",
        "timeout",
        "forward",
    ),
    *("repetition_penalty", "max_new_tokens", "keep_loops", "device"),
)
"""Of an evaluation, what this command takes too."""


@click.command(epilog="Exit codes: 0 done, 1 a page was not read, 2 bad input, 130 interrupted.")
@click.argument("named", nargs=-1, metavar="MODEL PAGES", shell_complete=completion.paths)
@click.option("--model", shell_complete=completion.paths, help="The model; then the only argument is PAGES.")
@click.option("--data", shell_complete=completion.paths, help="The pages; then the only argument is MODEL.")
@click.option(
    "--beside",
    metavar="OTHER",
    shell_complete=completion.paths,
    help="Read with this checkpoint too, and mark what differs.",
)
@settings_options(*KEYS)
@click.option("--json", "as_json", is_flag=True, help="Print what was read as JSON on stdout.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="New JSONL file for a row of each page, its images beside it: to be corrected, and given as --data.",
)
def read(
    named: tuple[str, ...],
    model: str | None,
    data: str | None,
    beside: str | None,
    as_json: bool,
    output: Path | None,
    **given: Any,
) -> None:
    """Show what a checkpoint reads on your pages.

    MODEL is a checkpoint folder or a model on the hub, named as for hyocr quant. PAGES is an image, a PDF file, a
    folder of both, or any other source. Texts go to stdout as the model writes them, token by token on a terminal;
    names of pages, and what is wrong with a text, to stderr. With --beside the texts of OTHER and MODEL stand beside
    each other, or in one, [-OTHER's-]{+MODEL's+}, where stdout is no terminal. Nothing is measured: that does hyocr
    eval.

    Ctrl-C leaves what was read, in the file of --output too. Its rows are held-out data once somebody has corrected
    them.

    \b
    hyocr read HunyuanOCR-int4 scan.pdf
    hyocr read HunyuanOCR-int4 pages/ --beside tencent/HunyuanOCR --output rows.jsonl
    """
    said = assigned(named, {"MODEL": model, "PAGES": data})
    loading()
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.evaluation.recorded.rows import new_rows
    from hyocr_core.evaluation.transcribe import open_pages, transcribe
    from hyocr_core.terminal.progress_bar import TerminalProgress

    plugins = {key: given.pop(key) for key in PLUGINS if key in given}
    config = merge_eval_config(
        None, {"model": said["MODEL"], "data": said["PAGES"], "baseline": beside, **given}, plugins
    )
    records = open_pages(config, tell)
    with ExitStack() as stack:
        rows = None if output is None else stack.enter_context(new_rows(output))
        progress = stack.enter_context(TerminalProgress(stderr_console()))
        shown = _shown(config, progress, as_json=as_json)
        stack.callback(shown.end)
        try:
            for page in transcribe(config, records, progress, begin=shown.begin, told=shown.told):
                shown.page(page)
                if rows is not None and page.answers:
                    rows.add(page.record, page.answers["model"].text, **_for_correction(page))
        except KeyboardInterrupt:
            kept = "" if rows is None else f"; {rows.path} has them"
            raise KeyboardInterrupt(f"interrupted; {len(shown.read)} of {len(records)} pages were read{kept}") from None
    _refuse_unread(shown.unread, len(records))


def _shown(config: EvalConfig, progress: TerminalProgress, *, as_json: bool) -> PagesShown:
    from hyocr_core.terminal.pages_shown import AsJson, Beside, OneText

    if as_json:
        return AsJson(config, progress, print_json)
    if config.rival is None:
        return OneText(progress, _print, tell, stream=sys.stdout.isatty())
    table = print_table if sys.stdout.isatty() else None
    return Beside(progress, _print, tell, _names(config.rival, config.model, config.forward), table)


def _names(other: str, own: str, forwards: Sequence[str]) -> tuple[str, str]:
    """The last parts, where they tell the two apart; of one checkpoint its two forwards."""
    if len(forwards) > 1:
        return forwards[0], forwards[1]
    short = Path(other).name, Path(own).name
    return short if short[0] != short[1] and all(short) else (other, own)


def _print(text: str) -> None:
    """On stdout, as it is but for what would steer the terminal."""
    click.echo(visible(text), nl=False)


def _for_correction(page: Transcript) -> dict[str, str]:
    """What helps whoever corrects a row."""
    more = {"beside": page.texts["baseline"]} if "baseline" in page.texts else {}
    return more | ({"fault": page.faults["model"]} if "model" in page.faults else {})


def _refuse_unread(unread: Mapping[str, str], total: int) -> None:
    if unread:
        name, reason = next(iter(unread.items()))
        error = CalibrationError if len(unread) == total else RunError
        raise error(f"{len(unread)} of {total} pages were not read, the first is {name}: {reason}")
