"""`hyocr eval`: how well a checkpoint reads, alone or beside another."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyocr_core.cli.common import command_line, print_json, print_table, stderr_console, verbose_option
from hyocr_core.errors import RunError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hyocr_core.checkpoint.quant_report import GateRecord
    from hyocr_core.contract.page_source import Record
    from hyocr_core.evaluation.scores.result import EvalResult


@click.command(
    "eval",
    params=[verbose_option()],
    epilog="Exit codes: 0 done, 1 the run or the gate failed, 2 bad input, 130 interrupted.",
)
@click.argument("model")
@click.option("--data", required=True, help="Pages with transcripts: a source as for `hyocr quant --calib`.")
@click.option("--task", help="Official prompt for pages without a question, such as parsing or parsing:zh.")
@click.option("--keep-duplicates", is_flag=True, help="Read pages that are the same as another, or nearly, too.")
@click.option("--baseline", help="Checkpoint to compare with, such as the one MODEL was made from.")
@click.option(
    "--backend",
    default="auto",
    show_default=True,
    help="What reads MODEL: transformers, dequant, vllm, or the URL of an endpoint such as http://127.0.0.1:8000/v1.",
)
@click.option("--baseline-backend", metavar="BACKEND", help="The same of --baseline.  [default: that of MODEL]")
@click.option("--cross-runtime", is_flag=True, help="Compare with --baseline even if another runtime reads that.")
@click.option(
    "--python", type=click.Path(path_type=Path), help="Interpreter that has vLLM, for vllm.  [default: this one]"
)
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=600,
    show_default=True,
    help="Seconds to wait for a page of an endpoint.",
)
@click.option(
    "--gate",
    metavar="BOUNDS",
    help="Exit 1 unless MODEL holds these beside --baseline, such as cer=0.5,agreement=0.98,loops=0; as for quant.",
)
@click.option(
    "--rtn", is_flag=True, help="Read, too, with --baseline's weights merely rounded to nearest in MODEL's format."
)
@click.option("--num-samples", type=click.IntRange(min=1), help="Pages to draw from the data.  [default: all]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of draw and bootstrap.")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), help="Limit per page.  [default: the model's own, else 2048]"
)
@click.option(
    "--batch-size",
    type=click.IntRange(min=1),
    help="Pages of one size read together; of an endpoint, asked for at once.  [default: 32; of an endpoint 1]",
)
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda or cuda:N.")
@click.option(
    "--state",
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder that keeps what was read until the result is there.  [default: ~/.cache/hyocr/eval]",
)
@click.option(
    "--resume/--no-resume",
    default=True,
    show_default=True,
    help="Go on after the pages that an interrupted run of the same evaluation has read.",
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
    model: str,
    data: str,
    task: str | None,
    keep_duplicates: bool,
    baseline: str | None,
    backend: str,
    baseline_backend: str | None,
    cross_runtime: bool,
    python: Path | None,
    timeout: float,
    gate: str | None,
    rtn: bool,
    num_samples: int | None,
    seed: int,
    max_new_tokens: int | None,
    batch_size: int | None,
    device: str,
    state: Path | None,
    resume: bool,
    as_json: bool,
    csv_file: Path | None,
    record: bool,
) -> None:
    """Measure how well a checkpoint reads.

    MODEL and --baseline are checkpoint folders or hub ids. Every page is read greedily with the model's own processor.
    CER is the character error rate, the sum of edit distances over the sum of reference characters, after Unicode NFC
    and without trailing whitespace; WER is the same in words, where each Chinese or Japanese character is a word.
    Repetition loops are counted as HunyuanOCR's own cleaner finds them. Agreement and KL compare the next-token
    distributions along the baseline's answers; they need no transcripts.

    --rtn shows what the method is worth: the same layers in the same format, scales over the whole range of each group,
    nothing calibrated or searched; activations are quantized as in MODEL.

    Of a quantized checkpoint, auto and dequant read with the weights as hyocr unpacks them, transformers with what
    Transformers itself makes of it; vllm starts vLLM, one page at a time. Of an endpoint, MODEL is the name of what it
    serves, or the folder of that; the key comes from HYOCR_API_KEY or OPENAI_API_KEY, and a page without an answer is
    asked for four times, then listed: the same command goes on with these. vLLM 0.32 mixes up pages that it encodes
    at once, so raise --batch-size only for a server that does not, such as one started with --max-num-seqs 1. vLLM and
    endpoints return only text: no agreement, no KL.

    An interrupted evaluation goes on when the same command is given again: pages are kept as they are read, and only
    for the same checkpoints, pages and options.

    \b
    hyocr eval HunyuanOCR-int4 --data pages/ --baseline tencent/HunyuanOCR
    """
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.evaluation.evaluate import check_transcripts, evaluate
    from hyocr_core.evaluation.reading.kept import default_state
    from hyocr_core.evaluation.reading.participants import Backends
    from hyocr_core.evaluation.recorded.csv_file import check_csv, write_csv
    from hyocr_core.evaluation.recorded.record_folder import check_recordable
    from hyocr_core.evaluation.scores.gate import (
        judge,
        needs_transcripts,
        open_gate,
        refuse_failures,
        refuse_more_than_text,
    )
    from hyocr_core.models.load import pick_device
    from hyocr_core.pages.sources import draw_pages
    from hyocr_core.terminal.progress_bar import TerminalProgress

    bounds = None if gate is None else open_gate(gate, baseline)
    backends = Backends.named(backend, baseline_backend, python=python, timeout=timeout, cross_runtime=cross_runtime)
    if bounds is not None and (backends.of("model").only_text or backends.of("baseline").only_text):
        refuse_more_than_text(bounds)
    say = partial(click.echo, err=True)
    records = draw_pages(data, task, num_samples, seed, keep_duplicates=keep_duplicates, say=say)
    check_transcripts(records, required=bounds is not None and needs_transcripts(bounds))
    if csv_file is not None:
        check_csv(csv_file)
    if record:
        check_recordable(Path(model))
    try:
        with TerminalProgress(stderr_console()) as progress:
            result = evaluate(
                model,
                records,
                baseline=baseline,
                backends=backends,
                rounded=rtn,
                data=data,
                seed=seed,
                max_new_tokens=max_new_tokens,
                batch_size=batch_size,
                device=pick_device(device),
                state=state or default_state(),
                resume=resume,
                progress=progress,
            )
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on after the pages read so far") from None
    _print(result, as_json=as_json)
    if csv_file is not None:
        write_csv(result, csv_file)
    _refuse_unread(result)
    verdict = None if bounds is None else judge(bounds, result)
    if record:
        _record(Path(model), result, records, verdict)
    if verdict is not None:
        refuse_failures(verdict)


def _refuse_unread(result: EvalResult) -> None:
    """An evaluation with a hole proves nothing: it is shown, but neither recorded nor held against a gate."""
    if result.unread:
        name, reason = next(iter(result.unread.items()))
        total = len(result.unread) + len(result.pages)
        raise RunError(
            f"{len(result.unread)} of {total} pages were not read, the first is {name}: {reason}; "
            "the same command asks for these again"
        )


def _record(folder: Path, result: EvalResult, records: Sequence[Record], verdict: GateRecord | None) -> None:
    from hyocr_core.checkpoint.quant_report import FILE_NAME
    from hyocr_core.evaluation.recorded.record_folder import REPORT, save_command, save_evaluation
    from hyocr_core.evaluation.recorded.summary import summarize
    from hyocr_core.pages.sources import source_name
    from hyocr_core.report.card import record_numbers
    from hyocr_core.report.page import write_page

    save_evaluation(folder, result, records)
    save_command(folder, "eval", command_line())
    written = folder / REPORT
    # Of another tool's checkpoint nobody knows how it was made, which is what card and page tell.
    if (folder / FILE_NAME).is_file():
        record_numbers(folder, summarize(result, source_name(result.data)), verdict)
        written = write_page(folder)
    click.echo(f"report {written}", err=True)


def _print(result: EvalResult, *, as_json: bool) -> None:
    from hyocr_core.terminal.evaluation_table import eval_table

    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_table(eval_table(result))
