"""`hyocr sweep`: quantize in many ways, and see which are worth having."""

from __future__ import annotations

from pathlib import Path

import click

from hyocr_core.cli.common import print_json, print_table, say, stderr_console, tell
from hyocr_core.contract.config import parse_config
from hyocr_core.errors import RunError
from hyocr_core.settings.run_file import load_yaml


@click.command(epilog="Exit codes: 0 done, 1 a run failed, 2 bad input, 130 interrupted.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print the comparison as JSON on stdout.")
def sweep(file: Path, as_json: bool) -> None:
    """Run a small grid of quantizations and print the Pareto front of size against CER.

    FILE is YAML. Every combination of an entry's grid is quantized into a folder of the output, and evaluated beside
    the original. The same command goes on after an interruption, and makes only what is not there yet.

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
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.evaluation.recorded.comparison import side_by_side
    from hyocr_core.run.sweep import SweepConfig, plan_sweep, run_sweep
    from hyocr_core.terminal.comparison_table import several_table
    from hyocr_core.terminal.progress_bar import TerminalProgress

    config = parse_config(SweepConfig, load_yaml(file), str(file))
    planned = plan_sweep(config, str(file), tell)
    try:
        with TerminalProgress(stderr_console()) as progress:
            outcome = run_sweep(planned, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on where this one stopped") from None
    if outcome.done:
        compared = side_by_side(outcome.done)
        if as_json:
            print_json(compared.model_dump(mode="json") | {"failed": outcome.failed})
        else:
            print_table(several_table(compared))
            say()
            say(compared.recommendation.text)
    if outcome.failed:
        name, why = next(iter(outcome.failed.items()))
        raise RunError(f"{len(outcome.failed)} of {len(planned)} runs failed; the first is {name}: {why}")
