"""`hyocr eval`: how well a checkpoint reads, alone or beside another."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyocr_core.cli.common import print_json, print_table, stderr_console, verbose_option

if TYPE_CHECKING:
    from hyocr_core.evaluation.result import EvalResult


@click.command(
    "eval", params=[verbose_option()], epilog="Exit codes: 0 done, 1 the run failed, 2 bad input, 130 interrupted."
)
@click.argument("model")
@click.option("--data", required=True, help="Pages with transcripts: a source as for `hyocr quant --calib`.")
@click.option("--task", help="Official prompt for pages without a question, such as parsing or parsing:zh.")
@click.option("--keep-duplicates", is_flag=True, help="Read pages that are the same as another, or nearly, too.")
@click.option("--baseline", help="Checkpoint to compare with, such as the one MODEL was made from.")
@click.option("--num-samples", type=click.IntRange(min=1), help="Pages to draw from the data.  [default: all]")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of draw and bootstrap.")
@click.option(
    "--max-new-tokens", type=click.IntRange(min=1), help="Limit per page.  [default: the model's own, else 2048]"
)
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=32, show_default=True, help="Pages of one size read together."
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
def eval_command(
    model: str,
    data: str,
    task: str | None,
    keep_duplicates: bool,
    baseline: str | None,
    num_samples: int | None,
    seed: int,
    max_new_tokens: int | None,
    batch_size: int,
    device: str,
    state: Path | None,
    resume: bool,
    as_json: bool,
    csv_file: Path | None,
) -> None:
    """Measure how well a checkpoint reads.

    MODEL and --baseline are checkpoint folders or hub ids. Every page is read greedily with the model's own processor.
    CER is the character error rate, the sum of edit distances over the sum of reference characters, after Unicode NFC
    and without trailing whitespace; WER is the same in words, where each Chinese or Japanese character is a word.
    Repetition loops are counted as HunyuanOCR's own cleaner finds them. Agreement and KL compare the next-token
    distributions along the baseline's answers; they need no transcripts.

    An interrupted evaluation goes on when the same command is given again: pages are kept as they are read, and only
    for the same checkpoints, pages and options.

    \b
    hyocr eval HunyuanOCR-int4 --data pages/ --baseline tencent/HunyuanOCR
    """
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.calibration.prompts import with_task
    from hyocr_core.calibration.sources import open_source, select
    from hyocr_core.evaluation.evaluate import evaluate
    from hyocr_core.evaluation.pages_csv import check_csv, write_csv
    from hyocr_core.evaluation.state import default_state
    from hyocr_core.models.load import pick_device
    from hyocr_core.report.progress import TerminalProgress

    pages = with_task(open_source(data), task)
    records = select(pages, num_samples, seed, keep_duplicates=keep_duplicates, say=partial(click.echo, err=True))
    if csv_file is not None:
        check_csv(csv_file)
    try:
        with TerminalProgress(stderr_console()) as progress:
            result = evaluate(
                model,
                records,
                baseline=baseline,
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


def _print(result: EvalResult, *, as_json: bool) -> None:
    from hyocr_core.evaluation.table import eval_table

    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_table(eval_table(result))
