"""What of an evaluation goes into the report of a checkpoint, and so to whoever it is published for."""

from __future__ import annotations

from hyocr_core.checkpoint.quant_report import EvaluationRecord, ScoreRecord
from hyocr_core.evaluation.scores.conclusion import in_words
from hyocr_core.evaluation.scores.result import Comparison, EvalResult, ModelScore, values


def summarize(result: EvalResult, data: str) -> EvaluationRecord:
    """The numbers of an evaluation. data: how the record names the source, without local paths."""
    compared, pages = result.comparison, result.pages
    return EvaluationRecord(
        data=data,
        seed=result.seed,
        pages=len(pages),
        transcribed=result.transcribed,
        decoding=result.decoding,
        max_pixels=result.max_pixels,
        task=result.task,
        system=result.system,
        device=result.environment["device"],
        model=_score(result.model, compared, len(pages)),
        baseline=None if result.baseline is None else _score(result.baseline, None, len(pages)),
        rounded=None if result.rounded is None else _score(result.rounded, result.rounded_comparison, len(pages)),
        cer_difference=None if compared is None else compared.cer_difference,
        cer_difference_interval=None if compared is None else compared.cer_difference_interval,
        metrics=result.metrics,
        differences={} if compared is None else compared.metrics,
        verdict=in_words(result),
    )


def _score(score: ModelScore, compared: Comparison | None, pages: int) -> ScoreRecord:
    return ScoreRecord(
        runtime=score.runtime,
        forward=score.forward,
        cer=score.cer,
        cer_interval=score.cer_interval,
        wer=score.wer,
        loops=round(score.loop_rate * pages),
        cut=score.cut_pages,
        pages_per_second=score.pages_per_second,
        tokens_per_second=score.tokens_per_second,
        weight_bytes=score.weight_bytes,
        agreement=None if compared is None else compared.agreement,
        agreement_interval=None if compared is None else compared.agreement_interval,
        kl=None if compared is None else compared.kl,
        identical=None if compared is None else compared.identical_pages,
        metrics=values(score),
    )
