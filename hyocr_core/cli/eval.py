"""`hyocr eval`: how well a checkpoint reads, alone or beside another."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from hyocr_core.cli.common import print_json, print_table, stderr_console, verbose_option

if TYPE_CHECKING:
    from hyocr_core.evaluation.result import EvalResult


@click.command(
    "eval", params=[verbose_option()], epilog="Exit codes: 0 done, 1 the run failed, 2 bad input, 130 interrupted."
)
@click.argument("model")
@click.option("--data", required=True, help="Pages with transcripts: image folder, JSONL file or synthetic[:N].")
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
@click.option("--json", "as_json", is_flag=True, help="Print the result, page by page, as JSON on stdout.")
def eval_command(
    model: str,
    data: str,
    baseline: str | None,
    num_samples: int | None,
    seed: int,
    max_new_tokens: int | None,
    batch_size: int,
    device: str,
    as_json: bool,
) -> None:
    """Measure how well a checkpoint reads.

    MODEL and --baseline are checkpoint folders or hub ids. Every page is read greedily with the model's own processor.
    CER is the character error rate, the sum of edit distances over the sum of reference characters, after Unicode NFC
    and without trailing whitespace. Agreement and KL compare the next-token distributions along the baseline's answers;
    they need no transcripts.

    \b
    hyocr eval HunyuanOCR-int4 --data pages/ --baseline tencent/HunyuanOCR
    """
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.calibration.sources import open_source, select
    from hyocr_core.evaluation.evaluate import evaluate
    from hyocr_core.models.load import pick_device
    from hyocr_core.report.progress import TerminalProgress

    records = open_source(data)
    if num_samples is not None:
        records = select(records, num_samples, seed)
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
            progress=progress,
        )
    _print(result, as_json=as_json)


def _print(result: EvalResult, *, as_json: bool) -> None:
    from hyocr_core.evaluation.table import eval_table

    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        print_table(eval_table(result))
