"""Everything that is known of a quantized checkpoint: what was done to it, how it reads and how fast it is served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hyocr_core.checkpoint.quant_report import FILE_NAME, QuantReport, read_report
from hyocr_core.errors import CheckpointError, ConfigError
from hyocr_core.evaluation.recorded.bench_record import load_bench
from hyocr_core.evaluation.recorded.record_folder import Recorded, load_commands, load_earlier, load_evaluations
from hyocr_core.evaluation.scores.numbers import count, percent
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.evaluation.scores.speeds import BenchResult
from hyocr_core.pages.sources import source_name


@dataclass(frozen=True)
class Evidence:
    """name: of the folder. command: of `quant`. bench: the newest measurement of its speed.

    evaluations: the newest of each set of pages, first the one to show. earlier: those of the same pages before.
    """

    folder: Path
    name: str
    report: QuantReport
    evaluations: tuple[Recorded, ...]
    earlier: tuple[Recorded, ...]
    command: str | None
    bench: BenchResult | None = None
    bench_command: str | None = None

    @property
    def others(self) -> tuple[Recorded, ...]:
        """The recorded evaluations that the page does not tell of."""
        shown = self.evaluations[:1]
        return tuple(each for each in (*self.evaluations[1:], *self.earlier) if each not in shown)

    @property
    def recorded(self) -> Recorded | None:
        """The evaluation that the page tells of, with what lies beside it."""
        return self.evaluations[0] if self.evaluations else None

    @property
    def evaluation(self) -> EvalResult | None:
        """The evaluation that the page tells of; None when none is recorded."""
        return None if self.recorded is None else self.recorded.result


def gather(folder: Path, chosen: str | None = None) -> Evidence:
    """Read the evidence of a checkpoint that hyocr wrote; CheckpointError when it is none or its files are damaged.

    chosen: the evaluation to show, by its name or that of its pages' source; ConfigError if there is none or several.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder; name one that `hyocr quant` wrote")
    if not (folder / FILE_NAME).is_file():
        raise CheckpointError(f"{folder}: has no {FILE_NAME}; name a folder that `hyocr quant` wrote")
    report = read_report(folder)
    newest, earlier = load_evaluations(folder), load_earlier(folder)
    if chosen is not None:
        first = _choose((*newest, *earlier), chosen)
        newest = (first, *(each for each in newest if each is not first))
    commands = load_commands(folder)
    return Evidence(
        folder,
        folder.resolve().name,
        report,
        newest,
        earlier,
        commands.get("quant"),
        load_bench(folder),
        commands.get("bench"),
    )


def _choose(recorded: Sequence[Recorded], chosen: str) -> Recorded:
    """`3fa29c01` is the newest of its pages, `3fa29c01:1` the first, and a source's name its only set of pages."""
    known = {each.name: each for each in recorded}
    if chosen in known:
        return known[chosen]
    # Those before come behind the newest.
    newest = {each.key: each for each in reversed(recorded)}.values()
    found = [each for each in newest if chosen in (each.name.partition(":")[0], source_name(each.result.data))]
    if len(found) == 1:
        return found[0]
    choice = "; ".join(f"{name}, {told_short(each)}" for name, each in known.items()) or "none is recorded"
    state = "several evaluations are called so" if found else "there is no such evaluation"
    raise ConfigError(f"--evaluation {chosen}: {state}: {choice}")


def told_short(recorded: Recorded) -> str:
    """What an evaluation read, and what came of it, in a few words."""
    result = recorded.result
    rate = "" if result.model.cer is None else f", CER {percent(result.model.cer)}"
    return f"{count(len(result.pages), 'page')} of {source_name(result.data)}, {result.model.runtime}{rate}"
