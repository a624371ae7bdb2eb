"""`hyocr eval`: how well a checkpoint reads, alone or beside another."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyocr_core.cli.common import (
    command_line,
    loading,
    print_json,
    print_table,
    say_verdict,
    stderr_console,
    tell,
    verbose_option,
)
from hyocr_core.cli.settings_options import PLUGINS, key_help, settings_options
from hyocr_core.cli.subjects import resume_option, with_model
from hyocr_core.errors import RunError
from hyocr_core.settings.eval_config import EvalConfig, merge_eval_config

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyocr_core.contract.page_source import Record
    from hyocr_core.evaluation.scores.result import EvalResult


@click.command(
    "eval",
    params=[verbose_option()],
    epilog="Exit codes: 0 done, 1 the run or the gate failed, 2 bad input, 130 interrupted.",
)
@with_model(key_help("model"))
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="YAML file; options win over it.")
@settings_options(*(key for key in EvalConfig.model_fields if key != "model"))
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that keeps what was read until the result is there.  [default: ~/.cache/hyocr/eval]",
)
@resume_option(
    "Go on after the pages that an interrupted run of the same evaluation has read, or start again.  [default: go on]",
    "--no-resume",
)
@click.option("--json", "as_json", is_flag=True, help="Print the result, page by page, as JSON on stdout.")
@click.option(
    "--csv", "csv_file", type=click.Path(path_type=Path, dir_okay=False), help="Write one row for each page there."
)
@click.option(
    "--record",
    is_flag=True,
    help="Keep result and images of the worst pages in the folder MODEL/report, and draw its page.",
)
def eval_command(
    file: Path | None,
    state: Path | None,
    resume: bool | None,
    as_json: bool,
    csv_file: Path | None,
    record: bool,
    **given: Any,
) -> None:
    """Measure how well a checkpoint reads.

    MODEL and --baseline are checkpoint folders or models on the hub, named as for hyocr quant. Pages are read greedily
    with the model's own processor. CER is the character error rate, the sum of edit distances over the sum of reference
    characters, after Unicode NFC and without trailing whitespace; WER is the same in words, where each Chinese or
    Japanese character is a word.
    Repetition loops are counted as HunyuanOCR's own cleaner finds them. Agreement and KL compare the next-token
    distributions along the baseline's answers; they need no transcripts.

    --rtn shows what the method is worth: the same layers in the same format, scales over the whole range of each group,
    nothing calibrated or searched; activations are quantized as in MODEL.

    Of a quantized checkpoint, auto and dequant read with the weights as hyocr unpacks them, transformers with what
    Transformers itself makes of it; vllm starts vLLM. Of an endpoint, MODEL is the name of what it
    serves, or the folder of that; the key comes from HYOCR_API_KEY or OPENAI_API_KEY, and a page without an answer is
    asked for four times, then listed: the same command goes on with these. vLLM with a
    Transformers below 5.20.1 mixes up pages that it encodes at once: it is given several only if its versions keep them
    apart, an endpoint only if a few trial pages read the same at once as one by one. vLLM and endpoints return only
    text: no agreement, no KL.

    An interrupted evaluation goes on when the same command is given again: pages are kept as they are read, and only
    for the same checkpoints, pages and options.

    \b
    hyocr eval HunyuanOCR-int4 --data pages/ --baseline tencent/HunyuanOCR
    """
    loading()
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.evaluation.evaluate import draw_records, evaluated
    from hyocr_core.evaluation.reading.kept import default_state
    from hyocr_core.evaluation.recorded.csv_file import check_csv, write_csv
    from hyocr_core.evaluation.recorded.record_folder import check_recordable
    from hyocr_core.evaluation.scores.gate import refuse_failures
    from hyocr_core.ranks.launch import together
    from hyocr_core.report.page import check_page
    from hyocr_core.terminal.progress_bar import TerminalProgress

    plugins = {key: given.pop(key) for key in PLUGINS}
    config = merge_eval_config(file, given, plugins)
    if csv_file is not None:
        check_csv(csv_file)
    if record:
        check_recordable(Path(config.model))
        check_page(Path(config.model))
    with together() as ranks:
        found = draw_records(config, tell)
        state = state or default_state()
        try:
            with (
                TerminalProgress(stderr_console()) as progress,
                evaluated(
                    config, found, state=state, resume=resume is not False, progress=progress, ranks=ranks
                ) as result,
            ):
                progress.close()
                # Printed last: a stdout that breaks loses nothing.
                if csv_file is not None and ranks.first:
                    write_csv(result, csv_file)
                if record and ranks.first and not result.unread:
                    _record(Path(config.model), result, found.records)
                _print(result, as_json=as_json)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command goes on after the pages read so far") from None
        _refuse_unread(result)
        if result.gate is not None:
            refuse_failures(result.gate)


def _refuse_unread(result: EvalResult) -> None:
    """An evaluation with a hole proves nothing: it is shown, but neither recorded nor held against a gate."""
    if result.unread:
        name, reason = next(iter(result.unread.items()))
        total = len(result.unread) + len(result.pages)
        raise RunError(
            f"{len(result.unread)} of {total} pages were not read, the first is {name}: {reason}; "
            "the same command asks for these again"
        )


def _record(folder: Path, result: EvalResult, records: Sequence[Record]) -> None:
    from hyocr_core.checkpoint.output_file import REPORT
    from hyocr_core.checkpoint.quant_report import FILE_NAME
    from hyocr_core.evaluation.recorded.record_folder import (
        load_earlier,
        load_evaluations,
        pages_key,
        save_eval_command,
        save_evaluation,
    )
    from hyocr_core.report.page import write_page

    save_evaluation(folder, result, records)
    save_eval_command(folder, result, command_line())
    written, shown = folder / REPORT, load_evaluations(folder)[0].key == pages_key(result)
    before = [each.name for each in load_earlier(folder) if each.key == pages_key(result)]
    if before:
        tell(f"the evaluation of these pages before is kept: hyocr report {folder} --evaluation {before[0]}")
    if not shown:
        tell("page and card tell of more pages, which were evaluated before; this evaluation is kept beside that")
    if (folder / FILE_NAME).is_file():
        if shown:
            _record_numbers(folder, result)
        written = write_page(folder)
    else:
        tell(f"no page is drawn: without {FILE_NAME} nobody knows how this checkpoint was made")
    tell(f"report {written}")


def _record_numbers(folder: Path, result: EvalResult) -> None:
    from hyocr_core.checkpoint.quant_report import read_report
    from hyocr_core.evaluation.recorded.summary import summarize
    from hyocr_core.pages.sources import source_name
    from hyocr_core.report.card import record_numbers
    from hyocr_core.wording import speaking

    data = source_name(result.data)
    with speaking(read_report(folder).lang):
        told = summarize(result, data)
    record_numbers(folder, summarize(result, data), result.gate, told)


def _print(result: EvalResult, *, as_json: bool) -> None:
    from hyocr_core.terminal.evaluation_table import eval_table

    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_table(eval_table(result))
        if result.verdict is not None:
            say_verdict(result.verdict)
