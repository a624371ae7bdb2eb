"""The last step of a run: quantized blocks become a checkpoint, which reads and is judged if asked to, and appears."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hyocr_core._version import __version__
from hyocr_core.checkpoint.quant_report import (
    FILE_NAME,
    CalibrationRecord,
    ModelRecord,
    QuantReport,
    read_report,
)
from hyocr_core.checkpoint.unchanged import Unchanged
from hyocr_core.checkpoint.writer import StagedCheckpoint, drop_stage, unaccepted_folder
from hyocr_core.errors import OutputError, RunError
from hyocr_core.evaluation.recorded.record_folder import load_run, save_evaluation, save_run
from hyocr_core.evaluation.recorded.summary import summarize
from hyocr_core.evaluation.scores.gate import failures
from hyocr_core.outside.home import expanded
from hyocr_core.pages.sources import source_name
from hyocr_core.report.card import FILE_NAME as CARD_NAME
from hyocr_core.report.card import model_card
from hyocr_core.resources import peak_rss_bytes, release_memory, versions
from hyocr_core.run.embedding import EmbeddedSamples, check_pages_again
from hyocr_core.run.export import export_files
from hyocr_core.run.job import Job
from hyocr_core.run.run_record import PREPARED, RunJournal
from hyocr_core.run.trial import Trial, hold_trial, named
from hyocr_core.run.trusted import check_parts
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.wording import speaking


@dataclass(frozen=True)
class Quantized:
    """What the blocks' loop left.

    samples: that calibrated it, None without. sources: the model's files. resumed_after: see QuantReport.
    """

    stage: StagedCheckpoint
    journal: RunJournal
    samples: EmbeddedSamples | None
    sources: Unchanged
    resumed_after: int | None


def publish(job: Job, done: Quantized, trial: Trial | None) -> QuantReport:
    """Build the checkpoint and let it appear: under the output's name, or beside it when it fails its gate."""
    job.progress.start("write", 1)
    report = _build(job, done)
    _describe(job, done.stage, report, report)
    job.progress.step()
    if trial is not None:
        report = _try(job, done.stage, report, trial)
    _check_sources(job, done)
    original = None if job.source.repo_id is not None else job.source.folder
    save_run(done.stage.checkpoint, _settings(job.run), original)
    done.stage.publish(accepted=_under_its_name(job.run, report))
    return report


def finish(run: RunConfig) -> QuantReport | None:
    """Do what is left of a run that was killed after its checkpoint appeared; return its report, None for others."""
    output = expanded(run.output).resolve()
    for place in (output, unaccepted_folder(output)):
        if load_run(place) == _settings(run):
            drop_stage(output)
            return read_report(place)
    return None


def refuse_again(run: RunConfig) -> None:
    """Raise OutputError for a run that has been finished.

    It is no success: whether the files that it read are still the same is not looked at, and whoever gives a command
    without `--resume` may count on it to be done.
    """
    output = expanded(run.output).resolve()
    if load_run(output) == _settings(run):
        drop_stage(output)
        raise OutputError(
            f"{output} is finished already, by a run with these very settings; with --resume this is no error. To "
            "quantize again, give another output, or delete this one"
        )


def _settings(run: RunConfig) -> dict[str, Any]:
    """What says which run it was, wherever its checkpoint lies."""
    return run.model_dump(mode="json", exclude={"output"})


def _check_sources(job: Job, done: Quantized) -> None:
    """Raise RunError unless everything that the run read is what it was when it began."""
    done.sources.check()
    if done.samples is not None:
        check_pages_again(done.samples, job.records, done.journal)
    damaged = done.sources.damaged()
    if damaged is not None:
        done.stage.forget()
        raise RunError(
            f"{damaged} no longer holds what it held when the run began, though nothing was written to it: what was "
            "made of it is deleted; fetch it again and start anew"
        )


def published_at(run: RunConfig, report: QuantReport) -> Path:
    """Where the checkpoint of a run with this report is."""
    output = expanded(run.output)
    # Resolved, as the stage was: a link may lead elsewhere.
    return output if _under_its_name(run, report) else unaccepted_folder(output.resolve())


def refuse_shortcomings(run: RunConfig, report: QuantReport) -> None:
    """Raise RunError for a checkpoint that is there but not as it should be: its gate failed, or layers fell back."""
    problems = []
    if report.gate is not None and not report.gate.accepted:
        problems.append(f"gate failed: {failures(report.gate)}; the checkpoint is in {published_at(run, report)}")
    if report.degraded and not run.allow_degraded:
        problems.append(
            f"{len(report.degraded)} layers are degraded, the first is {report.degraded[0].name}; "
            "--allow-degraded accepts it"
        )
    if problems:
        raise RunError("; ".join(problems))


def _under_its_name(run: RunConfig, report: QuantReport) -> bool:
    return report.gate is None or report.gate.accepted or run.keep


def _build(job: Job, done: Quantized) -> QuantReport:
    """Build the checkpoint, without what describes it."""
    places = (*job.model.vision_blocks, *job.model.decoder_blocks)
    finished = done.journal.record.blocks
    blocks = {place.key: finished[place.key] for place in places if place.key in finished}
    rescaled = [name for block in blocks.values() for name in block.rescaled]
    left_out = job.copies.keys() - job.kept
    replaced = {f"{name}.weight" for name in job.plan.quantized} | set(rescaled)
    carried = [name for name in job.original.tensors if name not in replaced and name not in left_out]
    check_parts(done.stage, done.journal)
    release_memory()
    prepared = {name: PREPARED for name in job.prepared if name in carried}
    config = job.reader.config | job.config_changes | {"quantization_config": job.quantization_config}
    files = done.stage.build(job.original, carried, list(blocks), config, prepared)
    files |= export_files(job, done.stage)
    return QuantReport(
        hyocr=__version__,
        lang=job.run.lang,
        method=job.main.record,
        further=tuple(share.record for share in job.shares[1:]),
        model=ModelRecord(
            source=job.source.repo_id or job.source.folder.resolve().name,
            revision=job.source.revision,
            subfolder=job.source.subfolder,
            sha256=done.sources.digests,
        ),
        calibration=_calibration_record(job, done.samples),
        ignored=job.plan.ignored,
        fallbacks={name: fallback.why for name, fallback in job.fallbacks.items()},
        rescaled=tuple(rescaled),
        prepared=job.prepared,
        config_changes=job.config_changes,
        layers=tuple(layer for block in blocks.values() for layer in block.layers),
        quantization_config=job.quantization_config,
        output_sha256=files,
        weight_bytes_before=sum(info.nbytes for info in job.original.tensors.values()),
        weight_bytes_after=sum(job.original.tensors[name].nbytes for name in carried)
        + sum(block.bytes for block in blocks.values()),
        phases=_phases(job),
        peak_rss_bytes=peak_rss_bytes(),
        resumed_after_block=done.resumed_after,
        environment=versions() | {"device": str(job.model.device), "platform": platform.platform()},
        observers=job.observed,
    )


def _phases(job: Job) -> dict[str, float]:
    return {name: round(seconds, 3) for name, seconds in job.watch.phases.items()}


def _calibration_record(job: Job, samples: EmbeddedSamples | None) -> CalibrationRecord | None:
    if samples is None:
        return None
    return CalibrationRecord(
        source=source_name(job.run.calib),
        seed=job.run.seed,
        samples=len(samples.names),
        tokens=samples.tokens,
        failures=samples.failures,
        sha256=samples.sha256,
        max_pixels=job.run.max_pixels,
        task=job.run.task,
        system=job.run.system,
        answers=job.run.answers,
        forward=job.run.forward,
        decoding=job.decoding if job.run.answers == "generate" else None,
        page_sha256=samples.page_sha256,
        copies={} if job.drawn.calibration is None else job.drawn.calibration.copies,
    )


def _describe(job: Job, stage: StagedCheckpoint, report: QuantReport, spoken: QuantReport) -> None:
    """Write report and card into the built checkpoint. spoken: the report in the language of the card."""
    stage.add_file(FILE_NAME, (report.model_dump_json(indent=2) + "\n").encode())
    card = model_card(
        spoken,
        stage.target.name,
        job.quantization_config,
        job.source.folder / CARD_NAME,
        penalty=job.penalty,
        from_hub=job.source.repo_id is not None,
    )
    stage.add_file(CARD_NAME, card.encode())


def _try(job: Job, stage: StagedCheckpoint, report: QuantReport, trial: Trial) -> QuantReport:
    """Let the built checkpoint read and the gate judge, and put what came of it into the checkpoint."""
    with job.watch.phase("evaluate"):
        result = hold_trial(job, trial, stage.checkpoint, stage.folder / "eval")
    changes: Mapping[str, object] = {
        "evaluation": summarize(result, source_name(trial.config.data)),
        "gate": result.gate,
        "phases": _phases(job),
        "peak_rss_bytes": peak_rss_bytes(),
    }
    report = report.model_copy(update=changes)
    result = named(result, job, str(published_at(job.run, report)))
    save_evaluation(stage.checkpoint, result, trial.found.records)
    with speaking(report.lang):
        spoken = report.model_copy(update={"evaluation": summarize(result, source_name(trial.config.data))})
    _describe(job, stage, report, spoken)
    return report
