"""`hyocr quant`: quantize a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyocr_core.cli.common import one_line, print_json, print_table, stderr_console
from hyocr_core.config import RunConfig
from hyocr_core.errors import RunError
from hyocr_core.run_file import merge_run_config

if TYPE_CHECKING:
    from hyocr_core.checkpoint.report import QuantReport


@click.command(epilog="Exit codes: 0 done, 1 the run failed or is degraded, 2 bad input, 130 interrupted.")
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="YAML file; flags win over it.")
@click.option("--method", help="Quantization method; `hyocr methods` lists them.")
@click.option("--model", help="Checkpoint folder, or a hub id such as tencent/HunyuanOCR.")
@click.option("--output", help="Folder to write; new or empty.")
@click.option("-o", "--option", "overrides", multiple=True, metavar="KEY=VALUE", help="Option of the method.")
@click.option("--format", "format_", help="Checkpoint format; short for -o format=...")
@click.option(
    "--calib",
    help="Pages: a folder of images and PDFs, a JSONL or PDF file, hf:DATASET[:SPLIT][?image=COL&text=COL&prompt=COL], "
    "synthetic[:N], or several joined by commas.  [default: synthetic]",
)
@click.option("--task", help="Official prompt for pages without a question, such as parsing or parsing:zh.")
@click.option("--keep-duplicates", is_flag=True, default=None, help="Use pages that are (nearly) the same as another.")
@click.option("--num-samples", type=int, help="Calibration samples to use.  [default: 128]")
@click.option("--seed", type=int, help="Seed of every random choice.  [default: 0]")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--spill", is_flag=True, default=None, help="Keep the activation cache on disk.")
@click.option("--allow-degraded", is_flag=True, default=None, help="Exit 0 even if a layer fell back.")
@click.option("--resume", is_flag=True, help="Go on after the last whole block of an interrupted run.")
@click.option("--dry-run", is_flag=True, help="Print what would be done, how large, long and loadable; write nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the report, or the plan, as JSON on stdout.")
def quant(
    file: Path | None,
    overrides: tuple[str, ...],
    format_: str | None,
    resume: bool,
    dry_run: bool,
    as_json: bool,
    **flags: Any,
) -> None:
    """Quantize a HunyuanOCR checkpoint.

    The YAML file has the keys of hyocr or is one of the AngelSlim toolkit; its names of methods, such as int4_gptq,
    are understood too.

    \b
    hyocr quant --method gptq --model tencent/HunyuanOCR --calib pages/ --output HunyuanOCR-int4
    """
    if format_ is not None:
        overrides = (*overrides, f"format={format_}")
    run, notes = merge_run_config(file, flags, overrides)
    for note in notes:
        click.echo(one_line(f"{file}: {note}"), err=True)
    if dry_run:
        _print_plan(run, resume=resume, as_json=as_json)
        return
    report = _run(run, resume=resume)
    if as_json:
        print_json(report.model_dump(mode="json"))
    if report.degraded and not run.allow_degraded:
        count = len(report.degraded)
        raise RunError(
            f"{count} layers are degraded, the first is {report.degraded[0].name}; --allow-degraded accepts it"
        )


def _run(run: RunConfig, *, resume: bool) -> QuantReport:
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.pipeline import quantize
    from hyocr_core.report.console import print_report
    from hyocr_core.report.progress import TerminalProgress

    console = stderr_console()
    try:
        with TerminalProgress(console) as progress:
            report = quantize(run, resume=resume, progress=progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted; the same command with --resume goes on after the last whole block"
        ) from None
    print_report(console, report, run.output)
    return report


def _print_plan(run: RunConfig, *, resume: bool, as_json: bool) -> None:
    # Imported here as above.
    from hyocr_core.dry_run import plan_run
    from hyocr_core.report.plan import heading, plan_tables
    from hyocr_core.report.progress import TerminalProgress

    with TerminalProgress(stderr_console()) as progress:
        plan = plan_run(run, resume=resume, progress=progress)
    if as_json:
        print_json(plan.model_dump(mode="json"))
        return
    click.echo(one_line(heading(plan)))
    for table in plan_tables(plan):
        click.echo()
        print_table(table)
