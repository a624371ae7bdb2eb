"""`hyocr push`: upload a quantized checkpoint to the hub."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import click

from hyocr_core.cli.common import loading, print_json, say, stderr_console


@click.command(epilog="Exit codes: 0 done, 1 the upload failed, 2 bad input, 130 interrupted.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("repo_id")
@click.option("--private", is_flag=True, help="Create the model as a private one.")
@click.option("--message", help="Message of the commit.")
@click.option("--replace", is_flag=True, help="Take the place of weights that the model holds already.")
@click.option(
    "--force", is_flag=True, help="Upload what has faults, no report, or a gate that it failed: nothing is verified."
)
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def push(
    checkpoint: Path, repo_id: str, private: bool, message: str | None, replace: bool, force: bool, as_json: bool
) -> None:
    """Upload a quantized checkpoint to the Hugging Face hub.

    CHECKPOINT is a folder that `hyocr quant` wrote, REPO_ID a model of yours, such as user/HunyuanOCR-int4; it is
    created if it is not there. The model card goes along. Log in first: `hf auth login`. What is uploaded is verified
    first, as by `hyocr verify`: its files are those of its report, and its gate, if it had one, was passed.

    \b
    hyocr push HunyuanOCR-int4 user/HunyuanOCR-int4 --private
    """
    loading()
    from hyocr_core.checkpoint.push import push as upload

    if not force:
        # Imported here: torch and transformers take seconds, and --help must not wait for them.
        from hyocr_core.terminal.progress_bar import TerminalProgress
        from hyocr_core.verification.release import refuse_unfit

        with TerminalProgress(stderr_console()) as progress:
            refuse_unfit(checkpoint, progress)
    done = upload(checkpoint, repo_id, private=private, message=message, replace=replace)
    if as_json:
        print_json(asdict(done))
    else:
        say(done.url)
