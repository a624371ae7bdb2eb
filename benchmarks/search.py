"""Whether `hyocr search` finds better than the same method for all layers, on the readers of `quality.py`.

For each reader and each draw of calibration lines, `gptq` of 4 bits is the measure: a search at its size is to have
less KL, and a search for its KL to be smaller, as `hyocr eval` reports it in bf16. It is measured on held-out lines,
with the vision tower of each, in fp32 arithmetic and in bf16. Beside them stands the CPU time of the search without its
trials, and that of the `gptq` job.
"""

from __future__ import annotations

import json
import math
import shlex
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean

import click
import torch
from candidates import EVERY
from instrument import Baseline
from quality import Subject, spread, subjects
from quantize import describe_machine

from hyocr_core.contract.backend import FORWARDS, Forward
from hyocr_core.errors import HyocrError
from hyocr_core.evaluation.evaluate import evaluate
from hyocr_core.models.parts import stored_bytes
from hyocr_core.run.quantize import quantize
from hyocr_core.search.run_search import search
from hyocr_core.search.search_config import CANDIDATES, SearchConfig
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.settings.recipe import RecipeRule, Rules, read_recipe
from hyocr_core.settings.run_config import RunConfig

UNIFORM = RecipeRule(match=("model.layers",), method="gptq", options={"format": "compressed-tensors"})
SMALLER = ("gptq bits=4 group_size=-1", *CANDIDATES)
"""Candidates for the decoder alone: without one smaller than groups of 128 there would be nothing to choose."""


@dataclass(frozen=True)
class Found:
    """One checkpoint. nbytes: of its weights. kl: 1e-4 nats per token. bf16_kl: the same as `hyocr eval` computes it.

    seconds: CPU time of the search without its trials, zero where it is known from before; or that of the job.
    """

    reader: str
    what: str
    draw: int
    nbytes: int
    kl: float
    bf16_kl: float
    seconds: float


@dataclass(frozen=True)
class Bench:
    """One reader and one draw."""

    subject: Subject
    count: int
    draw: int
    forward: Forward
    baseline: Baseline

    @property
    def lines(self) -> Path:
        """Those of the calibration."""
        return self.subject.draw(self.draw, self.count)

    def measure(self, *, vision: bool, trials: int) -> Iterator[Found]:
        """The uniform checkpoint, a search at its size and one for its KL."""
        uniform = self._quantized("gptq", (UNIFORM,), 0.0)
        yield uniform
        kind = "with vision" if vision else "decoder"
        for name, most in (("size", uniform.nbytes), ("kl", uniform.bf16_kl / 1e4)):
            yield self._searched(f"search, {kind}, at its {name}", {name: most}, vision=vision, trials=trials)

    def _searched(self, what: str, budget: dict[str, float], *, vision: bool, trials: int) -> Found:
        with tempfile.TemporaryDirectory(dir=self.subject.data) as folder:
            recipe = Path(folder) / "recipe.yaml"
            data = self.subject.data
            given = {"model": str(self.subject.checkpoint), "data": str(data / "calib.jsonl"), "output": recipe}
            # A bound of KL is one of certain pages: the search tries its recipes on those that it is held to.
            pages = {"num_samples": self.count, "eval": str(data / "heldout.jsonl")}
            how = {
                "keep_duplicates": True,
                "forward": self.forward,
                "device": "cpu",
                "seed": self.draw,
                "vision": vision,
            }
            more = {} if vision else {"candidates": SMALLER}
            config = SearchConfig.model_validate({**given, **pages, **how, **more, **budget, "trials": 0})
            start = time.process_time()
            search(config)
            seconds = time.process_time() - start
            search(config.model_copy(update={"trials": trials}))
            return self._quantized(what, read_recipe(recipe), seconds)

    def _quantized(self, what: str, rules: Rules, seconds: float) -> Found:
        with tempfile.TemporaryDirectory(dir=self.subject.data) as folder:
            output = Path(folder) / "checkpoint"
            run = {"model": str(self.subject.checkpoint), "output": output, "recipe": rules, "calib": str(self.lines)}
            how = {"num_samples": EVERY, "keep_duplicates": True, "forward": self.forward, "device": "cpu"}
            start = time.process_time()
            quantize(RunConfig.model_validate({**run, **how}))
            seconds = seconds or time.process_time() - start
            kl = 1e4 * self.baseline.compare(self.baseline.open(output), looks=True).kl
            _, parts = stored_bytes(output)
            return Found(self.subject.name, what, self.draw, sum(parts.values()), kl, self._read(output), seconds)

    def _read(self, output: Path) -> float:
        """KL as the search measures it, 1e-4 nats per token."""
        checkpoints = {"model": str(output), "baseline": str(self.subject.checkpoint), "forward": (self.forward,)}
        pages = {"data": str(self.subject.data / "heldout.jsonl"), "keep_duplicates": True, "device": "cpu"}
        compared = evaluate(EvalConfig.model_validate({**checkpoints, **pages})).comparison
        return 1e4 * (compared.kl if compared is not None and compared.kl is not None else math.nan)


def table(found: Sequence[Found]) -> Iterator[str]:
    """Markdown of one reader."""
    yield "| checkpoint | weights, MB | KL, 10^-4 | in bf16 | CPU seconds |"
    yield "|---" * 5 + "|"
    for what in dict.fromkeys(one.what for one in found):
        own = [one for one in found if one.what == what]
        mean = fmean(one.nbytes for one in own) / 1e6
        exact, read = spread([one.kl for one in own]), spread([one.bf16_kl for one in own])
        yield f"| {what} | {mean:.3f} | {exact} | {read} | {max(one.seconds for one in own):.0f} |"


@click.command(help=__doc__)
@click.option("--reader", "names", multiple=True, default=["demo", "deep"], show_default=True)
@click.option("--forward", type=click.Choice(FORWARDS), default="transformers", show_default=True)
@click.option("--draws", default=3, show_default=True, help="Calibrations of each.")
@click.option("--lines", default=128, show_default=True, help="Lines of a calibration.")
@click.option("--samples", default=512, show_default=True, help="Held-out pages to read.")
@click.option("--trials", default=3, show_default=True, help="Recipes that a search tries, on its own lines.")
@click.option("--vision/--decoder", default=True, help="Choose for the vision tower too.")
@click.option(
    "--work", type=click.Path(path_type=Path, file_okay=False), default=Path("out/quality"), show_default=True
)
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here, too.")
def main(
    names: tuple[str, ...],
    forward: Forward,
    draws: int,
    lines: int,
    samples: int,
    trials: int,
    vision: bool,
    work: Path,
    file: Path | None,
) -> None:
    work.mkdir(parents=True, exist_ok=True)
    found: list[Found] = []
    for subject in subjects(names, {}, work, samples):
        heldout = subject.data / "heldout.jsonl"
        baseline = Baseline(subject.checkpoint, heldout, samples, forward, torch.float32)
        for draw in range(draws):
            bench = Bench(subject, lines, draw, forward, baseline)
            for one in bench.measure(vision=vision, trials=trials):
                click.echo(f"{one}", err=True)
                found.append(one)
        click.echo(f"\n{subject.name}, forward of {forward}\n")
        click.echo("\n".join(table([one for one in found if one.reader == subject.name])))
    if file is not None:
        how = describe_machine() | {"command": shlex.join(["python", *sys.argv])}
        file.write_text(json.dumps({"how": how, "found": [asdict(one) for one in found]}, indent=2) + "\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main()
    except HyocrError as error:
        sys.exit(str(error))
