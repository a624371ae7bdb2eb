"""`hyocr search`: choose method and bits for every layer, under a budget."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyocr_core.cli import completion
from hyocr_core.cli.common import is_verbose, print_json, print_table, say, stderr_console, tell
from hyocr_core.cli.compare import lang_option
from hyocr_core.cli.serving_options import bytes_of
from hyocr_core.cli.subjects import with_model
from hyocr_core.contract.backend import FORWARDS
from hyocr_core.contract.config import parse_config

if TYPE_CHECKING:
    from hyocr_core.search.search_config import SearchConfig
    from hyocr_core.search.search_result import SearchResult


@click.command(
    epilog="Exit codes: 0 done, 1 the work failed, 2 bad input or a budget that nothing meets, 130 interrupted."
)
@with_model("The checkpoint; an argument says the same.", required=True)
@click.option("--data", required=True, shell_complete=completion.paths, help="Pages to measure on; as quant's --calib.")
@click.option("--size", metavar="SIZE", help="Budget: most bytes of the weights, such as 900MB.")
@click.option("--kl", type=float, metavar="NATS", help="Budget: most KL per answer token, such as 0.002.")
@click.option("--cer", type=float, metavar="POINTS", help="Budget: most percentage points of CER above the original's.")
@click.option(
    "--output", required=True, type=click.Path(path_type=Path), help="Recipe file to write, such as recipe.yaml."
)
@click.option("--revision", help="Commit, branch or tag of a model on the hub.  [default: the newest]")
@click.option(
    "--candidate",
    "candidates",
    multiple=True,
    metavar="'METHOD KEY=VALUE ...'",
    help="What a group of layers may get; none keeps it.  [default: 'gptq bits=4', 'gptq bits=4 group_size=32', "
    "'rtn bits=8 group_size=-1', 'fp8 activation_scheme=dynamic', none]",
)
@click.option("--vision", is_flag=True, default=None, help="Choose for the vision tower too.")
@click.option("--num-samples", type=int, metavar="N", help="Pages that methods are calibrated on.  [default: 128]")
@click.option("--scored-samples", type=int, metavar="N", help="Further pages, to measure the change on.  [default: 32]")
@click.option(
    "--eval",
    metavar="SOURCE",
    shell_complete=completion.paths,
    help="Pages to try recipes on.  [default: those measured on]",
)
@click.option("--eval-samples", type=int, metavar="N", help="Pages to draw from --eval.  [default: all]")
@click.option("--trials", type=int, metavar="N", help="Recipes to try; 0 trusts what is predicted.  [default: 3]")
@click.option("--task", shell_complete=completion.tasks, help="Official prompt for pages without a question.")
@click.option("--system", help="System message of all pages.")
@click.option("--keep-duplicates", is_flag=True, default=None, help="Use copies of a page too.")
@click.option("--max-pixels", type=int, help="Scale larger pages down to so many pixels.")
@click.option("--seed", type=int, help="Seed of every random choice.  [default: 0]")
@click.option("--device", help="auto, cpu, cuda or cuda:N.  [default: auto]")
@click.option("--forward", type=click.Choice(FORWARDS), help="What the model computes.  [default: reference]")
@click.option("--spill", is_flag=True, default=None, help="Keep the activation cache on disk.")
@lang_option
@click.option("--dry-run", is_flag=True, help="Say what would be done; measure nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def search(size: str | None, candidates: tuple[str, ...], dry_run: bool, as_json: bool, **given: Any) -> None:
    """Choose method and bits for every layer, under one budget: --size, --kl or --cer.

    Every candidate quantizes every group of layers that share an input, and what that alone does to the model's
    predictions on your pages is measured. The best choice under the budget is then computed, quantized with and read,
    and so are its neighbours. OUTPUT is a recipe for hyocr quant --recipe; beside it lie .json, all that was found,
    .csv, the curve of size against KL, and .html, which shows both and why each layer got what it got.

    What is measured is kept in ~/.cache/hyocr/search: the same command goes on after an interruption, and another
    budget starts from it.

    \b
    hyocr search tencent/HunyuanOCR --data pages/ --size 900MB --output recipe.yaml
    hyocr search tencent/HunyuanOCR --data pages/ --kl 0.002 --vision --output recipe.yaml
    hyocr quant --recipe recipe.yaml --model tencent/HunyuanOCR --calib pages/ --output HunyuanOCR-mix
    """
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.search.search_config import SearchConfig

    flags = given | {"size": bytes_of(size, "--size"), "candidates": candidates or None}
    config = parse_config(SearchConfig, {key: value for key, value in flags.items() if value is not None}, "search")
    if dry_run:
        _print_plan(config, as_json=as_json)
        return
    result = _run(config)
    if as_json:
        print_json(result.model_dump(mode="json"))
        return
    from hyocr_core.terminal.search_table import candidates_table, groups_table, tried_table

    print_table(groups_table(result) if is_verbose() else candidates_table(result))
    say()
    print_table(tried_table(result))
    tell(f"recipe {result.recipe}, page {Path(result.recipe).with_suffix('.html')}")


def _run(config: SearchConfig) -> SearchResult:
    from hyocr_core.search.run_search import search as run
    from hyocr_core.terminal.progress_bar import TerminalProgress

    try:
        with TerminalProgress(stderr_console()) as progress:
            return run(config, progress)
    except KeyboardInterrupt:
        raise KeyboardInterrupt("interrupted; the same command goes on where this one stopped") from None


def _print_plan(config: SearchConfig, *, as_json: bool) -> None:
    from hyocr_core.search.search_plan import plan_search
    from hyocr_core.terminal.progress_bar import TerminalProgress
    from hyocr_core.terminal.search_table import plan_lines

    with TerminalProgress(stderr_console()) as progress:
        plan = plan_search(config, progress)
    if as_json:
        smallest, largest = plan.range
        groups = [{"layers": list(group), "bytes": dict(sizes)} for group, sizes in plan.nbytes.items()]
        print_json({"smallest": smallest, "largest": largest, "kept": plan.kept_bytes, "groups": groups})
        return
    for line in plan_lines(plan):
        say(line)
