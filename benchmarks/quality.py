"""How near every method comes to full precision, on several trained readers and several draws of calibration lines.

KL and agreement are teacher-forced along the full-precision model's own answers to held-out pages, in fp32 arithmetic;
CER is that of greedy answers. Whatever is finished lies in --work, and a rerun goes on from there; what was measured
with other code, another checkpoint or other counts is measured anew. The reader `aside` is left alone unless --aside
asks for it: it is there to see whether what was chosen on the others holds, and chooses nothing itself.
"""

from __future__ import annotations

import json
import random
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import click
import torch
from candidates import OF_DOCUMENTS, OWN, Candidate, Given, named, peers
from instrument import Baseline
from quantize import describe_machine

from hyocr_core.checkpoint.reader import digest
from hyocr_core.contract.backend import FORWARDS, Forward
from hyocr_core.errors import HyocrError

sys.path.insert(0, str(Path(__file__).parents[1] / "examples/demo-ocr"))

from make_data import NAMES, write_data
from readers import place
from small_documents import DOCUMENTS

POOL = 512  # calibration lines from which each draw takes its own
ASIDE = "aside"


@dataclass(frozen=True)
class Conditions:
    """On what a number depends besides the draw. model, code: SHA-256. lines: of a calibration. samples: held-out."""

    reader: str
    forward: Forward
    candidate: str
    model: str
    code: str
    lines: int
    samples: int


@dataclass(frozen=True)
class Measured:
    """kl in nats per token; agreement, cer and parts (metrics by part) are fractions; full_: of full precision."""

    conditions: Conditions
    draw: int
    kl: float
    agreement: float
    cer: float
    full_cer: float
    parts: Mapping[str, float] = field(default_factory=dict)
    full_parts: Mapping[str, float] = field(default_factory=dict)


class Finished:
    """The file of what is measured already, one JSON line each."""

    def __init__(self, path: Path) -> None:
        self._path = path
        lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
        self._found = [_measured(json.loads(line)) for line in lines]

    def find(self, conditions: Conditions, draw: int) -> Measured | None:
        """The measurement under exactly these conditions."""
        return next((one for one in self._found if (one.conditions, one.draw) == (conditions, draw)), None)

    def add(self, one: Measured) -> None:
        """Note one more."""
        self._found.append(one)
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(one)) + "\n")


def _measured(row: dict[str, Any]) -> Measured:
    return Measured(**{**row, "conditions": Conditions(**row["conditions"])})


@dataclass(frozen=True)
class Subject:
    """A reader to measure on: its checkpoint, and the folder of its data."""

    name: str
    checkpoint: Path
    data: Path

    @property
    def task(self) -> str | None:
        """What its pages ask; metrics by part follow from it."""
        return "doc_parse" if self.name == DOCUMENTS else None

    def draw(self, seed: int, lines: int) -> Path:
        """The file of so many calibration lines, drawn by the seed."""
        rows = (self.data / "calib.jsonl").read_text(encoding="utf-8").splitlines()
        drawn = sorted(random.Random(seed).sample(range(len(rows)), lines))  # noqa: S311
        file = self.data / f"calib-{lines}-{seed}.jsonl"
        file.write_text("".join(f"{rows[index]}\n" for index in drawn), encoding="utf-8")
        return file


@dataclass
class Bench:
    """Measures candidates on one reader by one forward; the full-precision model reads when it is first needed."""

    subject: Subject
    forward: Forward
    lines: int
    samples: int
    finished: Finished
    _baseline: Baseline | None = None

    def __post_init__(self) -> None:
        self._model = digest(self.subject.checkpoint / "model.safetensors")

    def measure(self, candidate: Candidate, draws: int) -> Iterator[Measured]:
        """One for each draw; a method that looks at no lines is measured once, and is the same on all."""
        for seed in range(draws if candidate.calibrated else 1):
            one = self._one(candidate, seed)
            yield from (replace(one, draw=each) for each in ([seed] if candidate.calibrated else range(draws)))

    def _one(self, candidate: Candidate, seed: int) -> Measured:
        names = (self.subject.name, self.forward, candidate.name)
        conditions = Conditions(*names, self._model, candidate.code, self.lines, self.samples)
        found = self.finished.find(conditions, seed)
        if found is None:
            found = self._quantized(candidate, conditions, seed)
            self.finished.add(found)
        return found

    def _quantized(self, candidate: Candidate, conditions: Conditions, seed: int) -> Measured:
        given = Given(self.subject.checkpoint, self.subject.draw(seed, self.lines), self.forward)
        with tempfile.TemporaryDirectory(dir=self.subject.data, prefix="quantized-") as folder:
            output = Path(folder) / "checkpoint"
            candidate.quantize(given, output)
            other = self.baseline.open(output)
            distance, score, full = self.baseline.compare(other), self.baseline.read(other), self.baseline.score
        near = distance.kl, distance.agreement
        return Measured(conditions, seed, *near, score.cer, full.cer, score.parts, full.parts)

    @property
    def baseline(self) -> Baseline:
        """The full-precision model's answers."""
        if self._baseline is None:
            heldout = self.subject.data / "heldout.jsonl"
            how = self.samples, self.forward, torch.float32, self.subject.task
            self._baseline = Baseline(self.subject.checkpoint, heldout, *how)
        return self._baseline


def spread(values: Sequence[float]) -> str:
    """Mean and standard deviation; one value has none."""
    return f"{fmean(values):.2f}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def difference(own: Sequence[Measured], default: Sequence[Measured]) -> tuple[float, float]:
    """How much KL is above the default's on the same draw: mean, and its standard error (0 for one draw)."""
    of_draw = {one.draw: one.kl for one in default}
    more = [one.kl - of_draw[one.draw] for one in own if one.draw in of_draw]
    return fmean(more), stdev(more) / len(more) ** 0.5 if len(more) > 1 else 0.0


def table(found: Sequence[Measured], defaults: Mapping[str, str]) -> Iterator[str]:
    """Markdown of one reader and forward. defaults: candidate -> the one with which it is compared."""
    parts = list(found[0].full_parts)
    titles = ["candidate", "KL, 10^-4", "above the default", "agreement", "CER", *(f"`{name}`" for name in parts)]
    yield _line(titles)
    yield "|---" * len(titles) + "|"
    yield _line(["full precision", "", "", "", *_percent([found[0].full_cer, *found[0].full_parts.values()])])
    of: dict[str, list[Measured]] = {}
    for one in found:
        of.setdefault(one.conditions.candidate, []).append(one)
    for name, own in of.items():
        more = ""
        if defaults[name] != name and defaults[name] in of:
            more = "{:+.2f} ± {:.2f}".format(*(1e4 * part for part in difference(own, of[defaults[name]])))
        rates = [fmean(one.cer for one in own), *(fmean(one.parts[part] for one in own) for part in parts)]
        agreement = f"{fmean(one.agreement for one in own):.3%}"
        yield _line([f"`{name}`", spread([1e4 * one.kl for one in own]), more, agreement, *_percent(rates)])


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _percent(rates: Sequence[float]) -> list[str]:
    return [f"{rate:.2%}" for rate in rates]


def subjects(names: Sequence[str], checkpoints: Mapping[str, Path], work: Path, samples: int) -> Iterator[Subject]:
    """The readers that are there, their data written if need be; a line on stderr for each that is not."""
    for name in names:
        checkpoint = checkpoints.get(name, place("checkpoint", name))
        if not (checkpoint / "model.safetensors").is_file():
            click.echo(f"left out {name}: no checkpoint in {checkpoint}; train it, or give --checkpoint", err=True)
            continue
        data = work / f"{name}-{samples}"
        if not (data / "calib.jsonl").is_file():
            write_data(data, name, samples, POOL)
        yield Subject(name, checkpoint, data)


def _named(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> dict[str, Path]:
    pairs = [text.partition("=") for text in given]
    for name, _, folder in pairs:
        if name not in NAMES or not Path(folder).is_dir():
            raise click.BadParameter(f"{name}={folder}: write READER=FOLDER, a reader being {', '.join(NAMES)}")
    return {name: Path(folder) for name, _, folder in pairs}


@click.command(help=__doc__)
@click.option("--reader", "names", type=click.Choice([name for name in NAMES if name != ASIDE]), multiple=True)
@click.option("--aside", is_flag=True, help=f"Measure the reader `{ASIDE}`, too.")
@click.option(
    "--checkpoint", "checkpoints", multiple=True, callback=_named, help="READER=FOLDER, if it lies elsewhere."
)
@click.option("--candidate", "given", multiple=True, help="Method and options of hyocr, instead of the table's.")
@click.option("--forward", "forwards", type=click.Choice(FORWARDS), multiple=True, default=["transformers"])
@click.option("--draws", default=3, show_default=True, help="Calibrations of each candidate.")
@click.option("--lines", default=128, show_default=True, help=f"Lines of a calibration, of {POOL}.")
@click.option("--samples", default=512, show_default=True, help="Held-out pages to read.")
@click.option("--llmcompressor", type=click.Path(path_type=Path, exists=True), help="Python that has llm-compressor.")
@click.option("--gptqmodel", type=click.Path(path_type=Path, exists=True), help="Python that has GPTQModel.")
@click.option(
    "--work", type=click.Path(path_type=Path, file_okay=False), default=Path("out/quality"), show_default=True
)
@click.option("--json", "file", type=click.Path(path_type=Path, dir_okay=False), help="Write the result here, too.")
def main(
    names: tuple[str, ...],
    aside: bool,
    checkpoints: dict[str, Path],
    given: tuple[str, ...],
    forwards: tuple[Forward, ...],
    draws: int,
    lines: int,
    samples: int,
    work: Path,
    file: Path | None,
    **pythons: Path | None,
) -> None:
    work.mkdir(parents=True, exist_ok=True)
    chosen = names or tuple(name for name in NAMES if name != ASIDE)
    others = list(peers(pythons))
    finished = Finished(work / "finished.jsonl")
    found: list[Measured] = []
    failures: list[str] = []
    for subject in subjects([*chosen, *[ASIDE] * aside], checkpoints, work, samples):
        mine = given or (OF_DOCUMENTS if subject.name == DOCUMENTS else OWN)
        candidates: list[Candidate] = [*map(named, mine), *others]
        for forward in forwards:
            bench = Bench(subject, forward, lines, samples, finished)
            rows = list(_measure_all(bench, candidates, draws, failures))
            note = ", kept aside: no default was chosen on it" if subject.name == ASIDE else ""
            click.echo(f"\n{subject.name}, forward of {forward}{note}\n")
            if rows:
                click.echo("\n".join(table(rows, {each.name: each.default for each in candidates})))
            found += rows
    if file is not None:
        tools = {each.name: each.version for each in others}
        how = describe_machine() | {"command": shlex.join(["python", *sys.argv]), "peers": tools}
        result = {"how": how, "measured": [asdict(one) for one in found]}
        file.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    if failures:
        sys.exit(f"left out of the tables, because it failed: {', '.join(failures)}")


def _measure_all(bench: Bench, candidates: Sequence[Candidate], draws: int, failures: list[str]) -> Iterator[Measured]:
    """All that can be measured; the names of the others go to `failures`, what is wrong to stderr."""
    for candidate in candidates:
        try:
            found = list(bench.measure(candidate, draws))
        except HyocrError as error:
            failures.append(f"{bench.subject.name} {candidate.name}")
            click.echo(f"{bench.subject.name} {candidate.name}: {error}", err=True)
            continue
        kl = " ".join(f"{1e4 * one.kl:.2f}" for one in found)
        click.echo(f"{bench.subject.name} {candidate.name}: {kl}", err=True)
        yield from found


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        main()
    except HyocrError as error:
        sys.exit(str(error))
