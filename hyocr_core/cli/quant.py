"""`hyocr quant`: quantize a checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyocr_core.cli import completion
from hyocr_core.cli.common import (
    command_line,
    is_verbose,
    loading,
    print_json,
    print_table,
    say,
    say_verdict,
    stderr_console,
    tell,
)
from hyocr_core.cli.serving_options import NAMES, Asked, print_serving, serving_options
from hyocr_core.cli.subjects import resume_option, with_model
from hyocr_core.contract.backend import FORWARDS
from hyocr_core.errors import ConfigError, one_line
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.run_file import merge_run_config
from hyocr_core.wording import LANGUAGES

if TYPE_CHECKING:
    from hyocr_core.checkpoint.quant_report import QuantReport
    from hyocr_core.ranks.ranks import Ranks
    from hyocr_core.run.dry_run import DryRun


@click.command(
    epilog="Exit codes: 0 done, 1 the run failed, is degraded or fails its gate, or --fits is answered with no, 2 bad "
    "input, 130 interrupted."
)
@click.option("-c", "--config", "file", type=click.Path(path_type=Path), help="YAML file; flags win over it.")
@click.option("--method", shell_complete=completion.methods, help="Quantization method; `hyocr methods` lists them.")
@click.option(
    "--vision",
    metavar="METHOD",
    shell_complete=completion.methods,
    help="Another method for the vision tower; fp8 means fp8_dynamic there.  [default: it stays as it is]",
)
@click.option(
    "--recipe",
    metavar="FILE|NAME",
    shell_complete=completion.paths,
    help="Rules of which method quantizes which linears, instead of --method.",
)
@with_model(
    "Checkpoint folder, or a model on the Hugging Face hub: tencent/HunyuanOCR, a folder in it as in "
    "tencent/HunyuanOCR/v1.0, either with @REVISION, or its URL."
)
@click.option("--revision", help="Commit, branch or tag of a model on the hub.  [default: the newest]")
@click.option("--output", shell_complete=completion.paths, help="Folder to write; new or empty.")
@click.option(
    "-o",
    "--option",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    shell_complete=completion.method_options,
    help="Option of the method.",
)
@click.option(
    "--override",
    "layers",
    multiple=True,
    metavar="LAYERS:KEY=VALUE",
    help="Option of the method for the layers that a name or glob matches, such as '*.down_proj:group_size=64'.",
)
@click.option("--format", "format_", help="Checkpoint format; short for -o format=...")
@click.option(
    "--calib",
    "--data",
    "calib",
    shell_complete=completion.paths,
    help="Pages: a folder of images and PDFs, a JSONL or PDF file, hf:DATASET[:SPLIT][?image=COL&text=COL&prompt=COL], "
    "synthetic[:N], or several joined by commas.  [default: synthetic]",
)
@click.option(
    "--task",
    shell_complete=completion.tasks,
    help="Official prompt for pages without a question, such as table or table:en.  [default: doc_parse]",
)
@click.option("--system", help="System message of all pages; none may then bring its own.  [default: an empty one]")
@click.option(
    "--answers",
    help="What pages are calibrated with: data, the source's answers; generate, the model's own, which are kept in "
    "~/.cache/hyocr/answers; or none.  [default: data]",
)
@click.option("--keep-duplicates", is_flag=True, default=None, help="Use copies of a page too.")
@click.option("--num-samples", type=int, help="Calibration samples to use.  [default: 128]")
@click.option(
    "--max-pixels",
    type=int,
    help="Scale larger pages down to so many pixels, for calibration and --eval.  [default: the image processor's]",
)
@click.option("--seed", type=int, help="Seed of every random choice.  [default: 0]")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option(
    "--forward",
    type=click.Choice(FORWARDS),
    help="What the model computes: as its authors' code has it, or as Transformers' port.  [default: reference]",
)
@click.option("--spill", is_flag=True, default=None, help="Keep the activation cache on disk.")
@click.option("--keep-head", is_flag=True, default=None, help="Keep a head on disk that is a copy of the embedding.")
@click.option("--allow-degraded", is_flag=True, default=None, help="Exit 0 even if a layer fell back.")
@click.option(
    "--eval",
    metavar="SOURCE",
    shell_complete=completion.paths,
    help="Read these pages with the finished checkpoint and the original; as --calib.",
)
@click.option("--eval-samples", type=int, metavar="N", help="Pages to draw from --eval.  [default: all]")
@click.option(
    "--metrics",
    multiple=True,
    metavar="NAME[:KEY=VALUE]",
    shell_complete=completion.metrics,
    help="Measure further metrics on the pages of --eval: NAME,NAME, or one with an option.",
)
@click.option(
    "--gate",
    metavar="BOUNDS",
    help="What the reading must hold beside the original, such as cer=0.5,agreement=0.98,loops=0; see above.",
)
@click.option(
    "--repetition-penalty",
    type=float,
    help="When the model writes, for --eval or --answers generate: weigh down tokens that were there before; 1 for "
    "none.  [default: the checkpoint's own, 1.08 for v1.5]",
)
@click.option(
    "--max-new-tokens", type=int, help="Most tokens of an answer then.  [default: the checkpoint's own, or 32768]"
)
@click.option("--keep-loops", is_flag=True, default=None, help="Let an answer that repeats itself go on to its limit.")
@click.option("--lang", type=click.Choice(LANGUAGES), help="Language of the model card and the report.  [default: en]")
@click.option("--keep", is_flag=True, default=None, help="Publish a checkpoint that fails its gate too; still exit 1.")
@click.option(
    "--observe",
    "observers",
    multiple=True,
    metavar="NAME[:KEY=VALUE]",
    shell_complete=completion.observers,
    help="Run an observer beside the hooks; `hyocr observers` lists them. Again for another, or another option.",
)
@resume_option(
    "Go on with an interrupted run, which must be there and have the same settings, or start again and delete "
    "what it has done.  [default: go on if there is one]"
)
@click.option("--dry-run", is_flag=True, help="Print what would be done, how large, long and loadable; write nothing.")
@serving_options
@click.option("--json", "as_json", is_flag=True, help="Print the report, or the plan, as JSON on stdout.")
@click.pass_context
def quant(
    context: click.Context,
    /,
    file: Path | None,
    overrides: tuple[str, ...],
    layers: tuple[str, ...],
    observers: tuple[str, ...],
    metrics: tuple[str, ...],
    format_: str | None,
    resume: bool | None,
    dry_run: bool,
    asked: Asked,
    as_json: bool,
    **flags: Any,
) -> None:
    """Quantize a HunyuanOCR checkpoint.

    The YAML file has the keys of hyocr or is one of the AngelSlim toolkit; its names of methods, such as int4_gptq,
    are understood too.

    With --eval the finished checkpoint reads pages before it appears, and so do the original and, if the method
    learns from data, the original in round to nearest (RTN). Bounds of --gate: cer, wer: at most so many percentage
    points above the original; loops, cut: at most so many more pages that end in a repetition loop, or at the limit
    of tokens; agreement, identical: at least this fraction of next tokens, or of whole pages, like the original's;
    kl: at most this divergence. A checkpoint that fails is left in OUTPUT.unaccepted.

    \b
    hyocr quant --method gptq --model tencent/HunyuanOCR --calib pages/ --output HunyuanOCR-int4
    hyocr quant -c run.yaml --eval heldout.jsonl --gate cer=0.5,agreement=0.98,loops=0
    """
    if format_ is not None:
        overrides = (*overrides, f"format={format_}")
    run, notes = merge_run_config(file, flags, overrides, observers, metrics, layers)
    for note in notes:
        tell(f"{file}: {note}")
    loading()
    if dry_run:
        plan = _plan(run, asked, resume=resume)
        _print_plan(plan, as_json=as_json)
        context.exit(1 if plan.serving is not None and plan.serving.refused else 0)
    if asked:
        raise ConfigError(f"{NAMES} are questions to --dry-run; add it")
    # Imported late, for a quick --help.
    from hyocr_core.ranks.launch import together
    from hyocr_core.run.publish import refuse_shortcomings

    with together() as ranks:
        report = _run(run, ranks, resume=resume)
        if as_json:
            print_json(report.model_dump(mode="json"))
        refuse_shortcomings(run, report)


def _run(run: RunConfig, ranks: Ranks, *, resume: bool | None) -> QuantReport:
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.run.publish import published_at
    from hyocr_core.run.quantize import quantize
    from hyocr_core.terminal.progress_bar import TerminalProgress
    from hyocr_core.terminal.quantization_table import print_report

    console = stderr_console()
    try:
        with TerminalProgress(console) as progress:
            report = quantize(run, resume=resume or None, fresh=resume is False, progress=progress, ranks=ranks)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            "interrupted; the same command goes on after the last whole block, or page read"
        ) from None
    if not ranks.first:
        return report
    place = published_at(run, report)
    print_report(console, report, place, whole=is_verbose())
    tell(_draw_page(place))
    if report.evaluation is not None and report.evaluation.verdict is not None:
        say_verdict(report.evaluation.verdict, err=True)
    return report


def _draw_page(place: Path) -> str:
    """Draw the report page of a finished checkpoint; say where it is, or why there is none.

    Whatever may go wrong here, the run has not: the checkpoint is there and the page can be drawn again.
    """
    try:
        from hyocr_core.evaluation.recorded.record_folder import save_command
        from hyocr_core.report.page import write_page

        save_command(place, "quant", command_line())
        return f"report {write_page(place)}"
    except Exception as error:
        reason = one_line(error, named=True)
        return f"warning: the report page could not be drawn ({reason}); `hyocr report {place}` tries again"


def _plan(run: RunConfig, asked: Asked, *, resume: bool | None) -> DryRun:
    # Imported here as above.
    from hyocr_core.run.dry_run import plan_run
    from hyocr_core.terminal.progress_bar import TerminalProgress

    limit, load = asked.limit, asked.load
    with TerminalProgress(stderr_console()) as progress:
        return plan_run(run, resume=resume or None, fresh=resume is False, progress=progress, load=load, limit=limit)


def _print_plan(plan: DryRun, *, as_json: bool) -> None:
    from hyocr_core.terminal.plan_table import heading, plan_tables

    if as_json:
        print_json(plan.model_dump(mode="json"))
        return
    say(heading(plan))
    for table in plan_tables(plan):
        say()
        print_table(table)
    if plan.serving is not None:
        print_serving(plan.serving)
