"""`hyocr verify`: check what was written."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyocr_core.cli import completion
from hyocr_core.cli.common import is_verbose, loading, print_json, print_table, say, stderr_console
from hyocr_core.cli.subjects import with_model
from hyocr_core.errors import RunError

if TYPE_CHECKING:
    from hyocr_core.verification.verdict import VerifyResult


@click.command(epilog="Exit codes: 0 sound, 1 faults were found, 2 this is no quantized checkpoint, 130 interrupted.")
@with_model("The checkpoint; an argument says the same.", required=True, name="CHECKPOINT")
@click.option(
    "--original",
    "--baseline",
    "original",
    shell_complete=completion.paths,
    help="Full-precision checkpoint it was made from, a folder or a model on the hub as for hyocr quant: compare every "
    "weight. hyocr eval calls it --baseline, which does as well.",
)
@click.option("--revision", help="Commit, branch or tag of an original on the hub.  [default: the newest]")
@click.option(
    "--load",
    type=click.Choice(["transformers", "vllm", "llama.cpp"]),
    help="Read a rendered line with this runtime; with vllm several, one by one and at once; llama.cpp reads the GGUF "
    "files in the folder.",
)
@click.option("--python", type=click.Path(path_type=Path), help="Interpreter that has vLLM.  [default: this one]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def verify(model: str, as_json: bool, **options: Any) -> None:
    """Check a quantized checkpoint, by hyocr or another tool.

    Finds tensors that are missing, unknown or of the wrong shape, layers that runtimes would take for what they are
    not, scales and weights that cannot be right, and, in what hyocr wrote, any changed byte. With --original every
    dequantized weight is compared with the one it was made from. Faults are printed on stdout, a line each.

    \b
    hyocr verify HunyuanOCR-int4 --original tencent/HunyuanOCR
    """
    loading()
    # Imported here: torch and transformers take seconds, and --help must not wait for them.
    from hyocr_core.terminal.progress_bar import TerminalProgress
    from hyocr_core.verification.verify import verify as run

    checkpoint = Path(model)
    with TerminalProgress(stderr_console()) as progress:
        result = run(checkpoint, progress=progress, **options)
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        _print(result)
    if result.faults:
        more = f" and {len(result.faults) - 1} more" if len(result.faults) > 1 else ""
        raise RunError(f"{checkpoint}: not sound: {result.faults[0].place}: {result.faults[0].problem}{more}")
    if result.load is not None and result.load.outcome == "cannot be tried here":
        raise RunError(f"--load {result.load.runtime} cannot be tried here: {result.load.detail}")


def _print(result: VerifyResult) -> None:
    from hyocr_core.verification.verdict import layer_table, lines, runtime_table, worst_layers

    for line in lines(result):
        say(line)
    say()
    print_table(runtime_table(result.runtimes))
    layers = result.layers if is_verbose() else worst_layers(result)
    if layers:
        say()
        if len(layers) < len(result.layers):
            say(f"the {len(layers)} layers closest to what their format promises; -v shows all {len(result.layers)}")
        print_table(layer_table(layers))
