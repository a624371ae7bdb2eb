"""What calibration answers and token weights are worth: distance to bf16 along its own answers to held-out lines.

Every choice is calibrated on several draws of the calibration lines, the same for all, so that what differs between
the rows of the table can be told from what differs between draws. The baseline reads once for all of them, which
takes a small part of the time of as many `hyocr eval --baseline`, and gives the same KL and agreement.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import click
import torch
from instrument import Baseline

from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig

DEMO = Path(__file__).parents[1] / "examples/demo-ocr"
CHECKPOINT = DEMO / "checkpoint"

OPTIONS: dict[str, dict[str, Any]] = {"gptq": {}, "awq": {}, "fp8": {"observer": "mse"}}
ANSWERS = ("none", "data", "generate")
WEIGHTINGS = ("uniform", "balanced")


@dataclass(frozen=True)
class Measured:
    """kl in nats per token; agreement is a fraction of tokens."""

    method: str
    answers: str
    weighting: str
    seed: int
    kl: float
    agreement: float


def measure(baseline: Baseline, choice: tuple[str, str, str], seed: int, lines: int, folder: Path) -> Measured:
    """Calibrate one choice on so many lines, drawn by the seed."""
    method, answers, weighting = choice
    output = folder / f"{method}-{answers}-{weighting}-{seed}"
    run = {"model": str(CHECKPOINT), "output": output, "method": method, "calib": str(DEMO / "data/calib.jsonl")}
    drawn = {"num_samples": lines, "seed": seed, "answers": answers}
    quantize(RunConfig.model_validate(run | drawn | {"options": OPTIONS[method] | {"weighting": weighting}}))
    found = baseline.compare(baseline.open(output))
    return Measured(*choice, seed, found.kl, found.agreement)


def table(found: Sequence[Measured]) -> Iterator[str]:
    """Markdown: a row for each choice; its KL, and how much that is above the default's on the same draw."""
    of_draw = {(one.method, one.answers, one.weighting, one.seed): one.kl for one in found}
    yield "| method | answers | weighting | KL, 10^-4 | more than data, uniform | agreement |"
    yield "|---" * 6 + "|"
    for choice in dict.fromkeys((one.method, one.answers, one.weighting) for one in found):
        own = [one for one in found if (one.method, one.answers, one.weighting) == choice]
        more = [1e4 * (one.kl - of_draw[one.method, "data", "uniform", one.seed]) for one in own]
        error = stdev(more) / len(more) ** 0.5 if len(more) > 1 else 0.0
        kl, agreement = fmean(1e4 * one.kl for one in own), fmean(one.agreement for one in own)
        difference = "" if choice[1:] == ("data", "uniform") else f"{fmean(more):+.2f} ± {error:.2f}"
        yield f"| `{choice[0]}` | {choice[1]} | {choice[2]} | {kl:.2f} | {difference} | {agreement:.3%} |"


@click.command(help=__doc__)
@click.option("--method", "methods", type=click.Choice(list(OPTIONS)), multiple=True, default=["gptq", "awq"])
@click.option("--draws", default=4, show_default=True, help="Calibrations of each choice.")
@click.option("--lines", default=64, show_default=True, help="Lines of a calibration, of 128.")
@click.option("--samples", default=512, show_default=True, help="Held-out lines to read.")
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here, too.")
def main(methods: tuple[str, ...], draws: int, lines: int, samples: int, file: Path | None) -> None:
    found: list[Measured] = []
    baseline = Baseline(CHECKPOINT, DEMO / "data/heldout.jsonl", samples, "reference", torch.bfloat16)
    with tempfile.TemporaryDirectory(prefix="hyocr-calibration-") as folder:
        # The answers, too, are this run's own.
        os.environ["XDG_CACHE_HOME"] = folder
        for seed, method, answers, weighting in itertools.product(range(draws), methods, ANSWERS, WEIGHTINGS):
            found.append(measure(baseline, (method, answers, weighting), seed, lines, Path(folder)))
            click.echo(f"{found[-1]}", err=True)
    click.echo("\n".join(table(found)))
    if file is not None:
        file.write_text(json.dumps([asdict(one) for one in found], indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
