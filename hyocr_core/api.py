"""What the commands do, as functions for notebooks and other programs; their names are in `hyocr_core`.

They raise HyocrError with the text that the command line shows, print nothing, keep nothing from one call to the next,
and leave the process's threads, environment and logging as they are. Importing this module imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from hyocr_core.progress import Progress
from hyocr_core.settings.bench_load import merge_bench_config
from hyocr_core.settings.eval_config import EvalConfig, merge_eval_config
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.run_file import merge_run_config

if TYPE_CHECKING:
    from hyocr_core.checkpoint.quant_report import QuantReport
    from hyocr_core.evaluation.scores.result import EvalResult
    from hyocr_core.evaluation.scores.speeds import BenchResult
    from hyocr_core.verification.verdict import VerifyResult


@overload
def quantize(
    run: RunConfig, *, resume: bool | None = None, fresh: bool = False, progress: Progress | None = None
) -> QuantReport: ...


@overload
def quantize(
    *,
    model: str,
    method: str | None = None,
    output: str | Path,
    options: dict[str, Any] | None = None,
    resume: bool | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> QuantReport: ...


def quantize(
    run: RunConfig | None = None,
    *,
    resume: bool | None = None,
    fresh: bool = False,
    progress: Progress | None = None,
    **settings: Any,
) -> QuantReport:
    """Quantize a checkpoint and publish it, as `hyocr quant` does.

    run, or its fields as settings: model, method or recipe, output, options, calib, num_samples, eval, gate and so on.
    resume: None goes on after the last whole block of an interrupted run of the same settings, if there is one; True
    demands one; False refuses to begin beside one. fresh: begin anew, and delete what an interrupted run has done.
    progress: told of every phase and step; None tells nobody.
    Returns the report: `degraded` are layers that fell back, `gate.accepted` is false when the gate failed, both of
    which make the command exit with 1.
    Raises BadInputError (ConfigError, CheckpointError, ...) before anything is written, RunError when the run fails;
    the same call then goes on.
    """
    from hyocr_core.run import quantize as pipeline

    if run is None:
        run = merge_run_config(None, settings, ()).run
    elif settings:
        raise TypeError(f"give a RunConfig or its fields, not both: {', '.join(settings)}")
    return pipeline.quantize(run, resume=resume, fresh=fresh, progress=progress)


@overload
def evaluate(
    config: EvalConfig, *, state: Path | None = None, resume: bool = True, progress: Progress | None = None
) -> EvalResult: ...


@overload
def evaluate(
    *,
    model: str | Path,
    data: str | Path,
    baseline: str | Path | None = None,
    state: Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    **settings: Any,
) -> EvalResult: ...


def evaluate(
    config: EvalConfig | None = None,
    *,
    state: Path | None = None,
    resume: bool = True,
    progress: Progress | None = None,
    **settings: Any,
) -> EvalResult:
    """Measure how well a checkpoint reads the pages of a source, as `hyocr eval` does.

    config, or its fields as settings: model, data, baseline, backend, metrics, gate and so on.
    state: folder that keeps what was read until the result is there; None: one in the user's cache. resume: go on
    after the pages that an interrupted evaluation of the same has kept there.
    progress: told of every phase and step; None tells nobody.
    Returns the result; `gate.accepted` is false when the gate failed, which makes the command exit with 1.
    Raises BadInputError when an input cannot be used, RunError when the evaluation fails.
    """
    from hyocr_core.evaluation import evaluate as evaluation
    from hyocr_core.evaluation.reading.kept import default_state

    if config is None:
        config = merge_eval_config(None, settings)
    elif settings:
        raise TypeError(f"give an EvalConfig or its fields, not both: {', '.join(settings)}")
    return evaluation.evaluate(config, state=state or default_state(), resume=resume, progress=progress)


def bench(
    *,
    model: str | Path,
    backend: str,
    baseline: str | Path | None = None,
    progress: Progress | None = None,
    **settings: Any,
) -> BenchResult:
    """Measure how fast a checkpoint is served, as `hyocr bench` does.

    model, baseline: checkpoints, or what a server calls them. backend: vllm, llama.cpp, another that serves, or the URL
    of an endpoint. settings: data, num_samples, at_once=(1, 8), turns, repetitions, together and so on.
    progress: told of every phase and step; None tells nobody.
    Returns the result: `result.model.level(8).pages_per_second` of each repetition, `result.faster(8)` as median, least
    and most. Raises BadInputError before anything is loaded, for what cannot be measured; RunError when a runtime
    fails.
    """
    from hyocr_core.evaluation.measure_speed import measure_speed

    named = {"model": str(model), "baseline": None if baseline is None else str(baseline), "backend": backend}
    return measure_speed(*merge_bench_config(named | settings), progress)


def verify(
    checkpoint: str | Path,
    *,
    original: str | Path | None = None,
    revision: str | None = None,
    load: Literal["transformers", "vllm", "llama.cpp"] | None = None,
    python: Path | None = None,
    progress: Progress | None = None,
) -> VerifyResult:
    """Check a quantized checkpoint, by hyocr or another tool, as `hyocr verify` does.

    original: folder or hub name of what it was made from; every weight is compared. revision: of an original that is on
    the hub. load: a runtime to read a line with. python: the interpreter that has vLLM; None: this one.
    Returns the result; the checkpoint is sound when `faults` is empty.
    Raises CheckpointError for a folder that is no quantized checkpoint, or one of a kind that hyocr does not know;
    BadInputError for a revision without an original.
    """
    from hyocr_core.verification import verify as verification

    return verification.verify(
        Path(checkpoint),
        original=None if original is None else str(original),
        revision=revision,
        load=load,
        python=python,
        progress=progress,
    )
