"""Many quantizations of one model from one file: which is the smallest that still reads?"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator

from hyocr_core.checkpoint.durable import replacing, save_bytes, writing
from hyocr_core.checkpoint.quant_report import FILE_NAME as REPORT_NAME
from hyocr_core.checkpoint.quant_report import QuantReport, read_report
from hyocr_core.checkpoint.writer import check_target, drop_stage, is_unfinished
from hyocr_core.contract.config import FrozenModel, parse_config
from hyocr_core.errors import ConfigError, HyocrError, OutputError
from hyocr_core.outside.json_text import read_object
from hyocr_core.progress import Progress, Silent
from hyocr_core.ranks.ranks import ALONE, Ranks
from hyocr_core.run.job import Drawn, prepare
from hyocr_core.run.publish import refuse_shortcomings
from hyocr_core.run.quantize import quantize
from hyocr_core.run.trial import prepare_trial
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.shared import MODEL

BEGUN_NAME = "sweep.json"
"""In the sweep's folder: name -> the configuration of every run that was begun there."""


class SweepEntry(FrozenModel):
    """A method with its options, and the options of which every combination is tried."""

    method: str = Field(min_length=1, description="name of the method, or distribution:name")
    options: dict[str, Any] = Field({}, description="options of the method that stay the same")
    grid: dict[str, list[Any]] = Field({}, description="option -> the values to try; all combinations are")

    @field_validator("grid")
    @classmethod
    def _values_given(cls, value: dict[str, list[Any]]) -> dict[str, list[Any]]:
        empty = [key for key, values in value.items() if not values]
        if empty:
            raise ValueError(f"{empty[0]} has no values to try")
        return value


class SweepConfig(FrozenModel):
    """The file of `hyocr sweep`. Keys of a run that are not named here are the defaults of `hyocr quant`."""

    model: str = Field(min_length=1, description=MODEL)
    output: Path = Field(description="folder to write; every quantization becomes a folder in it")
    eval: str = Field(min_length=1, description="pages with transcripts that every quantization reads")
    calib: str = Field("synthetic", min_length=1, description="calibration source, as for hyocr quant")
    run: dict[str, Any] = Field({}, description="further keys of hyocr quant for every run, such as num_samples")
    runs: list[SweepEntry] = Field(min_length=1, description="methods, each with its options and grid")


@dataclass(frozen=True)
class Planned:
    """One run. name: of its folder. done: it is there already, from the same options. drawn: pages that all share."""

    name: str
    run: RunConfig
    done: bool
    drawn: Drawn


@dataclass(frozen=True)
class SweepOutcome:
    """done: the folders with a finished checkpoint, in the order of the file. failed: name -> why."""

    done: tuple[Path, ...]
    failed: Mapping[str, str]


class _Once(Silent):
    """Says each line once, however many runs it is about."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._said: set[str] = set()

    def say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            self._say(text)


def plan_sweep(config: SweepConfig, where: str, say: Callable[[str], None]) -> list[Planned]:
    """Every run of a sweep, checked as `hyocr quant` would check it before its first long step.

    say: shows a line to the user, such as which pages are left out.
    Raises BadInputError that begins with `where` and the run's name.
    """
    planned: dict[str, Planned] = {}
    begun, drawn, progress = _read_begun(config.output), Drawn(), _Once(say)
    for entry in config.runs:
        for values in product(*entry.grid.values()):
            varied = dict(zip(entry.grid, values, strict=True))
            name = _name(entry, varied)
            if name in planned:
                raise ConfigError(f"{where}: {name} stands there twice; give each run options of its own")
            run = _run_config(config, entry, varied, name, where)
            planned[name] = _plan(run, name, where, begun, drawn, progress)
    return list(planned.values())


def run_sweep(
    planned: Sequence[Planned], progress: Progress | None = None, *, fresh: bool = False, ranks: Ranks = ALONE
) -> SweepOutcome:
    """Quantize and evaluate what is not there yet; a run that fails does not keep the others from being tried.

    An interrupted sweep goes on where it stopped, within a run too. fresh: begins an interrupted run anew; what is
    finished stays. ranks: the processes that share the runs, each of which is one process's alone.
    """
    progress = progress or Silent()
    ranks.told(lambda: _note_begun(planned))

    def ended() -> Iterator[tuple[str, str | None]]:
        for number in ranks.deal(len(planned)):
            each, there = planned[number], ": is there already" if planned[number].done else ""
            progress.say(f"{each.name} ({number + 1} of {len(planned)}){there}")
            try:
                refuse_shortcomings(each.run, _find(each) if each.done else _make(each, progress, fresh=fresh))
            except HyocrError as error:
                yield each.name, str(error)
            else:
                yield each.name, None

    outcomes: dict[str, str | None] = {}
    for name, why in ranks.collected(ended()):
        outcomes[name] = why
        if why is not None:
            progress.say(f"{name}: failed: {why}")
    outcomes = ranks.told(lambda: outcomes)
    done = tuple(each.run.output for each in planned if outcomes[each.name] is None)
    return SweepOutcome(done, {each.name: why for each in planned if (why := outcomes[each.name]) is not None})


def _find(planned: Planned) -> QuantReport:
    # A kill may have left the stage of a checkpoint that has appeared.
    drop_stage(planned.run.output)
    return read_report(planned.run.output)


def _make(planned: Planned, progress: Progress, *, fresh: bool) -> QuantReport:
    return quantize(planned.run, fresh=fresh, progress=progress, drawn=planned.drawn)


def _note_begun(planned: Sequence[Planned]) -> None:
    """Note the options of all runs that are still to be made."""
    to_do = {each.name: each.run.model_dump(mode="json") for each in planned if not each.done}
    if not to_do:
        return
    folder = planned[0].run.output.parent
    with writing(folder / BEGUN_NAME):
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / BEGUN_NAME) as partial:
            save_bytes(partial, (json.dumps(_read_begun(folder) | to_do, indent=2) + "\n").encode())


def _name(entry: SweepEntry, varied: Mapping[str, Any]) -> str:
    """Such as `gptq-group_size=64`; safe as a folder's name."""
    parts = [entry.method.replace(":", "."), *(f"{key}={_short(value)}" for key, value in varied.items())]
    return "-".join(parts)


def _short(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    kept = "".join(char if char.isalnum() or char in "._,=+" else "_" for char in text).strip("_")
    return kept or "none"


def _run_config(config: SweepConfig, entry: SweepEntry, varied: Mapping[str, Any], name: str, where: str) -> RunConfig:
    own = {
        "model": config.model,
        "output": config.output / name,
        "method": entry.method,
        "options": {**entry.options, **varied},
        "calib": config.calib,
        "eval": config.eval,
    }
    for key in config.run:
        if key in own:
            raise ConfigError(f"{where}: run.{key}: is given elsewhere in this file; remove it from run")
        if key in ("gate", "keep"):
            raise ConfigError(f"{where}: run.{key}: a sweep compares and judges nothing; remove it")
    return parse_config(RunConfig, config.run | own, f"{where}: {name}")


def _plan(run: RunConfig, name: str, where: str, begun: Mapping[str, Any], drawn: Drawn, progress: Progress) -> Planned:
    """Check one run."""
    try:
        if name in begun and (run.output / REPORT_NAME).is_file():
            # Parsed, since an older hyocr wrote fewer keys.
            before = parse_config(RunConfig, begun[name], f"{run.output.parent / BEGUN_NAME}: {name}")
            if before.model_dump(mode="json") != run.model_dump(mode="json"):
                raise OutputError(f"{run.output} was made with other options; give the sweep another output")
            return Planned(name, run, True, drawn)
        check_target(run.output, resume=is_unfinished(run.output))
        prepare_trial(prepare(run, progress, drawn))
    except HyocrError as error:
        error.args = (f"{where}: {name}: {error}",)
        raise
    return Planned(name, run, False, drawn)


def _read_begun(folder: Path) -> dict[str, Any]:
    path = folder / BEGUN_NAME
    if not path.is_file():
        return {}
    try:
        return read_object(path, OutputError)
    except OutputError as error:
        raise OutputError(f"{error}; delete it, and the folders beside it, to start anew") from error
