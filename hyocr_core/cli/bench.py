"""`hyocr bench`: how fast a checkpoint is served, alone or beside the one it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyocr_core.cli.common import command_line, print_json, print_sentences, print_table, say, stderr_console, tell
from hyocr_core.cli.compare import lang_option
from hyocr_core.cli.settings_options import PLUGINS, settings_options
from hyocr_core.cli.subjects import with_model
from hyocr_core.settings.bench_load import MAX_NEW_TOKENS, PAGES, READING, merge_bench_config
from hyocr_core.wording import Language, speaking

if TYPE_CHECKING:
    from hyocr_core.evaluation.scores.speeds import BenchResult


@click.command(epilog="Exit codes: 0 done, 1 a runtime failed, 2 bad input, 130 interrupted.")
@with_model("The checkpoint, or what a server calls it; an argument says the same.", required=True)
@settings_options(*READING)
@click.option("--data", default=PAGES, show_default=True, help="Pages to read; a source as for hyocr eval.")
@click.option("--max-new-tokens", type=int, default=MAX_NEW_TOKENS, show_default=True, help="Most tokens of an answer.")
@click.option("--at-once", default="1,4,16", show_default=True, help="Numbers of pages that are read at once, in turn.")
@click.option("--turns", type=int, default=1, show_default=True, help="How often each is loaded, warmed and measured.")
@click.option(
    "--repetitions", type=int, default=7, show_default=True, help="Measurements of each number at once, in a turn."
)
@click.option(
    "--together/--one-at-a-time",
    default=True,
    show_default=True,
    help="Have both loaded and measure them alternately, or load one after the other, for less memory.",
)
@click.option(
    "--first-token/--no-first-token", default=True, show_default=True, help="Measure when the first token is there."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Write one row for each repetition there.",
)
@click.option(
    "--page", type=click.Path(path_type=Path, dir_okay=False), help="Draw it as an HTML page that needs nothing else."
)
@lang_option
@click.option("--record", is_flag=True, help="Keep the result in the folder MODEL/report, and draw its page.")
def bench(
    model: str,
    as_json: bool,
    csv_file: Path | None,
    page: Path | None,
    lang: Language,
    record: bool,
    **given: Any,
) -> None:
    """Measure how fast a checkpoint is served.

    MODEL and --baseline are checkpoint folders or models on the hub; of a server, the names of what it serves.
    --backend vllm starts and stops vLLM itself; a URL is a server that runs already, --baseline-backend that of the
    baseline. Both are loaded and read every page for nothing; then they read all pages alternately, --at-once so many
    at a time, so that what slows the machine down slows both. Shown are medians of the repetitions, with the least and
    the most. Pages differ each time in pixels that nobody sees, so that no server can answer from what it kept.

    Memory is the most that the server's processes held, if it runs on this machine.

    \b
    hyocr bench HunyuanOCR-int4 --baseline tencent/HunyuanOCR --backend vllm --at-once 1,8 --record
    """
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.evaluation.measure_speed import measure_speed
    from hyocr_core.evaluation.recorded.bench_csv import check_bench_csv, write_bench_csv
    from hyocr_core.evaluation.recorded.record_folder import check_recordable
    from hyocr_core.report.page import check_page
    from hyocr_core.report.speed_page import check_speed_page, write_speed_page
    from hyocr_core.terminal.progress_bar import TerminalProgress

    plugins = {key: given.pop(key) for key in PLUGINS if key in given}
    config, load = merge_bench_config({"model": model, **given}, plugins)
    if csv_file is not None:
        check_bench_csv(csv_file)
    if page is not None:
        check_speed_page(page)
    if record:
        check_recordable(Path(model))
        check_page(Path(model))
    with TerminalProgress(stderr_console()) as progress:
        result = measure_speed(config, load, progress)
    if csv_file is not None:
        write_bench_csv(result, csv_file)
    if page is not None:
        with speaking(lang):
            tell(f"page {write_speed_page(result, page)}")
    if record:
        _record(Path(model), result)
    _print(result, as_json=as_json)


def _record(folder: Path, result: BenchResult) -> None:
    from hyocr_core.checkpoint.output_file import REPORT
    from hyocr_core.checkpoint.quant_report import FILE_NAME
    from hyocr_core.evaluation.recorded.bench_record import save_bench
    from hyocr_core.evaluation.recorded.record_folder import save_command
    from hyocr_core.report.page import write_page

    save_bench(folder, result)
    save_command(folder, "bench", command_line())
    # Of another tool's checkpoint nobody knows how it was made, which is what the page tells.
    tell(f"report {write_page(folder) if (folder / FILE_NAME).is_file() else folder / REPORT}")


def _print(result: BenchResult, *, as_json: bool) -> None:
    from hyocr_core.terminal.speed_table import speed_lines, speed_table

    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    print_table(speed_table(result))
    say()
    for line in speed_lines(result):
        print_sentences(line)
