"""`hyocr sweep`: quantize in many ways, and see which are worth having."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from hyocr_core.cli.common import loading, print_json, stderr_console, tell
from hyocr_core.cli.compare import csv_option, lang_option, print_several
from hyocr_core.cli.methods import print_rows
from hyocr_core.cli.subjects import resume_option
from hyocr_core.contract.config import parse_config
from hyocr_core.errors import RunError
from hyocr_core.settings.run_file import load_yaml
from hyocr_core.wording import Language, speaking

if TYPE_CHECKING:
    from hyocr_core.run.sweep import Planned

PAGE = "index.html"
"""In the folder of a sweep."""


@click.command(epilog="Exit codes: 0 done, 1 a run failed, 2 bad input, 130 interrupted.")
@click.argument("file", type=click.Path(path_type=Path))
@resume_option("Go on with runs that were interrupted, or start these again; what is finished stays.  [default: go on]")
@click.option("--dry-run", is_flag=True, help="List the runs, and which of them are there already; make none.")
@click.option("--json", "as_json", is_flag=True, help="Print the comparison, or the list, as JSON on stdout.")
@csv_option
@lang_option
def sweep(file: Path, resume: bool | None, dry_run: bool, as_json: bool, csv_file: Path | None, lang: Language) -> None:
    """Run a small grid of quantizations, and say which one to take.

    FILE is YAML. Every combination of an entry's grid is quantized into a folder of the output, and evaluated beside
    the original; index.html beside them compares them, as hyocr compare does. The same command goes on after an
    interruption, and makes only what is not there yet.

    \b
    hyocr sweep sweep.yaml --dry-run

    \b
    model: tencent/HunyuanOCR
    calib: pages/
    eval: heldout.jsonl
    output: sweep
    run: {num_samples: 64}        # further keys of hyocr quant, for all
    runs:
      - method: fp8
      - method: gptq
        options: {bits: 4}
        grid:
          group_size: [64, 128]
          ignore: [[], [model.layers.0]]
    """
    loading()
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.evaluation.recorded.comparison import side_by_side
    from hyocr_core.evaluation.recorded.csv_file import check_comparison_csv, write_comparison_csv
    from hyocr_core.ranks.launch import together
    from hyocr_core.report.comparison_page import check_comparison_page, write_comparison_page
    from hyocr_core.run.sweep import SweepConfig, plan_sweep, run_sweep
    from hyocr_core.terminal.progress_bar import TerminalProgress

    if csv_file is not None:
        check_comparison_csv(csv_file)
    config = parse_config(SweepConfig, load_yaml(file), str(file))
    if (config.output / PAGE).exists():
        check_comparison_page(config.output / PAGE)
    planned = plan_sweep(config, str(file), tell)
    if dry_run:
        _print_plan(planned, as_json=as_json)
        return
    with together() as ranks:
        try:
            with TerminalProgress(stderr_console()) as progress:
                outcome = run_sweep(planned, progress, fresh=resume is False, ranks=ranks)
        except KeyboardInterrupt:
            raise KeyboardInterrupt("interrupted; the same command goes on where this one stopped") from None
        if outcome.done and ranks.first:
            compared = side_by_side(outcome.done)
            if csv_file is not None:
                write_comparison_csv(compared, csv_file)
            with speaking(lang):
                tell(f"page {write_comparison_page(side_by_side(outcome.done), config.output / PAGE)}")
            if as_json:
                print_json(compared.model_dump(mode="json") | {"failed": outcome.failed})
            else:
                print_several(compared)
        if outcome.failed:
            name, why = next(iter(outcome.failed.items()))
            raise RunError(f"{len(outcome.failed)} of {len(planned)} runs failed; the first is {name}: {why}")


def _print_plan(planned: Sequence[Planned], *, as_json: bool) -> None:
    if as_json:
        keys = {"method", "options", "output"}
        print_json(
            [
                {"name": each.name, "done": each.done} | each.run.model_dump(include=keys, mode="json")
                for each in planned
            ]
        )
        return
    rows = [
        (each.name, each.run.method or "", "done" if each.done else "to do", str(each.run.output)) for each in planned
    ]
    print_rows(("run", "method", "state", "folder"), rows)
