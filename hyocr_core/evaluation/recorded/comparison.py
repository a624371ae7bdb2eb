"""Several quantizations of one model beside each other, from the evaluations recorded with them."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field

from hyocr_core.checkpoint.quant_report import Measure, MetricRecord
from hyocr_core.contract.config import FrozenModel, show
from hyocr_core.errors import BadInputError
from hyocr_core.evaluation.recorded.evidence import Evidence, gather
from hyocr_core.evaluation.recorded.pareto import Contender, pareto_front
from hyocr_core.evaluation.recorded.recommend import Recommendation, recommend
from hyocr_core.evaluation.scores.rates import bootstrap_interval, erring_rate
from hyocr_core.evaluation.scores.result import EvalResult, Interval, ModelScore, Runtime, values


class Candidate(FrozenModel):
    """One checkpoint of the comparison; rates are fractions, intervals 95 % bootstrap intervals over pages."""

    name: str = Field(description="of the folder, as short as tells it from the others; `baseline` for the baseline")
    kind: Literal["baseline", "quantized"]
    method: str | None
    format: str | None
    runtime: Runtime
    weight_bytes: int | None
    cer: float | None
    cer_interval: Interval | None
    cer_difference: float | None = Field(description="CER less the baseline's")
    cer_difference_interval: Interval | None
    behind_best: float | None = Field(description="CER less that of the best quantization; None for the best itself")
    behind_best_interval: Interval | None = Field(description="paired")
    agreement: float | None
    agreement_interval: Interval | None = None
    kl: float | None
    loop_rate: float
    metrics: dict[str, float] = Field({}, description="of the metrics that were named, or follow from the task")
    metric_differences: dict[str, Measure] = Field({}, description="by them, this less the baseline, paired")
    pages_per_second: float
    tokens_per_second: float
    front: bool = Field(description="no other quantization is smaller without being measurably worse, or better")


class Several(FrozenModel):
    """The whole comparison. candidates: the baseline first, if one was read, then as they were given."""

    data: str = Field(description="the source as it was given to the first evaluation")
    pages: int
    metrics: dict[str, MetricRecord] = Field({}, description="the metrics that some evaluation named, by name")
    candidates: tuple[Candidate, ...]
    recommendation: Recommendation


def side_by_side(folders: Sequence[Path], *, cross_runtime: bool = False) -> Several:
    """Compare quantizations of one model by the evaluations that are recorded with them.

    cross_runtime: also compare what different runtimes, or other decoding, gave.
    Raises CheckpointError for a folder that hyocr did not write, BadInputError when one is given twice, has no
    evaluation, or when they are not of the same model and the same pages.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise BadInputError("a comparison needs each checkpoint once")
    found = [gather(folder) for folder in folders]
    results = _evaluations(found)
    names = _short_names(found)
    _check_same_model(found, names)
    _check_same_pages(results, names)
    if not cross_runtime:
        _check_same_runtime(results, names)
    first = next((result for result in results if result.baseline is not None), None)
    rows = [] if first is None or first.baseline is None else [_baseline(first.baseline)]
    best = min(results, key=lambda result: (result.model.cer is None, result.model.cer))
    quantized = [_candidate(*each, best) for each in zip(names, found, results, strict=True)]
    contenders = [
        Contender(row.name, row.weight_bytes or 0, result) for row, result in zip(quantized, results, strict=True)
    ]
    front = pareto_front(contenders)
    rows += [row.model_copy(update={"front": index in front}) for index, row in enumerate(quantized)]
    metrics = {name: metric for result in results for name, metric in result.metrics.items()}
    return Several(
        data=results[0].data,
        pages=len(results[0].pages),
        metrics=metrics,
        candidates=tuple(rows),
        recommendation=recommend(contenders),
    )


def _evaluations(found: Sequence[Evidence]) -> list[EvalResult]:
    """Of each the evaluation of the largest set of pages that all have read; its first where there is no such set."""
    results = [each.evaluation for each in found if each.evaluation is not None]
    for each in found:
        if each.evaluation is None:
            known = results[0] if results else None
            data = shlex.quote(known.data) if known is not None and known.data else "SOURCE"
            baseline = shlex.quote(known.baseline.model) if known is not None and known.baseline else "MODEL"
            command = f"hyocr eval {shlex.quote(str(each.folder))} --data {data} --baseline {baseline} --record"
            raise BadInputError(f"{each.folder}: has no recorded evaluation: {command}")
    by_pages = [{_pages(one.result): one.result for one in reversed(each.evaluations)} for each in found]
    common = (pages for pages in map(_pages, _results(found[0])) if all(pages in known for known in by_pages))
    shared = next(common, None)
    return results if shared is None else [known[shared] for known in by_pages]


def _results(evidence: Evidence) -> list[EvalResult]:
    return [each.result for each in evidence.evaluations]


def _pages(result: EvalResult) -> tuple[tuple[str, str | None], ...]:
    return tuple((page.name, page.reference) for page in result.pages)


def _short_names(found: Sequence[Evidence]) -> list[str]:
    """The folders' names, with those of the folders above where they would be the same."""
    paths = [each.folder.resolve() for each in found]
    for depth in range(1, max(len(path.parts) for path in paths)):
        names = ["/".join(path.parts[-depth:]) for path in paths]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in paths]


def _check_same_model(found: Sequence[Evidence], names: Sequence[str]) -> None:
    models = [tuple(sorted(each.report.model.sha256.items())) for each in found]
    if len(set(models)) > 1:
        sources = [each.report.model.source for each in found]
        raise BadInputError(f"these are made of different checkpoints: {_listed(names, sources)}")


def _check_same_pages(results: Sequence[EvalResult], names: Sequence[str]) -> None:
    if len(set(map(_pages, results))) > 1:
        read = [f"{len(result.pages)} pages of {result.data}" for result in results]
        raise BadInputError(f"these have not read the same pages: {_listed(names, read)}; evaluate them on the same")


def _check_same_runtime(results: Sequence[EvalResult], names: Sequence[str]) -> None:
    how = [_how(result) for result in results]
    other = [place for place, values in enumerate(zip(*how, strict=True)) if len(set(values)) > 1]
    if other:
        read = [", ".join(each[place] for place in other) for each in how]
        raise BadInputError(
            f"these were not read alike: {_listed(names, read)}; evaluate them alike, or give --cross-runtime"
        )


def _how(result: EvalResult) -> tuple[str, ...]:
    """How pages were read, in words."""
    return (
        result.model.runtime,
        f"{result.model.forward or 'unknown'} forward",
        str(result.decoding),
        f"end tokens {list(result.decoding.stop_token_ids)}",
        f"{result.max_pixels or 'all'} pixels",
        f"{result.task or 'default'} task",
        f"{'default' if result.system is None else show(result.system)} system message",
    )


def _listed(names: Iterable[str], values: Iterable[str]) -> str:
    return "; ".join(f"{name}: {value}" for name, value in zip(names, values, strict=True))


def _baseline(score: ModelScore) -> Candidate:
    return Candidate(
        name="baseline",
        kind="baseline",
        method=None,
        format=None,
        **_read(score),
        cer_difference=None,
        cer_difference_interval=None,
        behind_best=None,
        behind_best_interval=None,
        agreement=None,
        kl=None,
        front=False,
    )


def _read(score: ModelScore) -> dict[str, object]:
    fields = (
        *("runtime", "weight_bytes", "cer", "cer_interval", "loop_rate", "pages_per_second"),
        "tokens_per_second",
    )
    return score.model_dump(include=set(fields)) | {"metrics": values(score)}


def _candidate(name: str, evidence: Evidence, result: EvalResult, best: EvalResult) -> Candidate:
    report, compared = evidence.report, result.comparison
    behind, interval = (None, None) if result is best else _behind(result, best)
    read = _read(result.model)
    if read["weight_bytes"] is None:
        read["weight_bytes"] = report.weight_bytes_after
    return Candidate(
        name=name,
        kind="quantized",
        method=report.title,
        format=None if (written := report.method.config.get("format")) is None else str(written),
        **read,
        cer_difference=None if compared is None else compared.cer_difference,
        cer_difference_interval=None if compared is None else compared.cer_difference_interval,
        behind_best=behind,
        behind_best_interval=interval,
        agreement=None if compared is None else compared.agreement,
        agreement_interval=None if compared is None else compared.agreement_interval,
        kl=None if compared is None else compared.kl,
        metric_differences={} if compared is None else compared.metrics,
        front=False,
    )


def _behind(result: EvalResult, best: EvalResult) -> tuple[float | None, Interval | None]:
    """CER less the best one's, on the same pages, with its paired interval."""
    if result.model.cer is None or best.model.cer is None:
        return None, None
    own, theirs = ([page.errors or 0 for page in each.pages] for each in (result, best))
    sizes = [len(page.reference or "") for page in result.pages]
    less = [mine - other for mine, other in zip(own, theirs, strict=True)]
    otherwise = erring_rate([*own, *theirs], [*sizes, *sizes])
    interval = bootstrap_interval(less, sizes, seed=result.seed, signed=True, otherwise=otherwise)
    return result.model.cer - best.model.cer, interval
