"""Recipes tried: quantized by, read with, and compared with the original on the user's pages."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.writer import is_unfinished
from hyocr_core.errors import CalibrationError, RunError
from hyocr_core.evaluation.evaluate import draw_records, evaluate
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.pages.checked import Pages, check_pages
from hyocr_core.pages.found import Found
from hyocr_core.run.job import Drawn
from hyocr_core.run.quantize import quantize
from hyocr_core.search.chosen_rules import rules_of
from hyocr_core.search.knapsack import Chosen
from hyocr_core.search.search_plan import SearchPlan
from hyocr_core.search.search_record import SearchRecord, Tried
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.settings.recipe import recipe_text


@dataclass(frozen=True)
class Trials:
    """What recipes are tried with. folder: of the checkpoints while they are read."""

    plan: SearchPlan
    folder: Path
    journal: Journal[SearchRecord]

    def check(self) -> None:
        """Look at the pages that recipes are to read. Raises BadInputError for what cannot be used."""
        found, _ = self._pages
        if self.plan.config.cer is not None and all(record.answer is None for record in found.records):
            raise CalibrationError(f"--cer: no page of {self._config.data} has a transcript; bound --kl instead")

    def of(self, chosen: Chosen) -> Tried:
        """How the recipe of a choice reads; what was found before is not looked for again."""
        rules = rules_of(self.plan, chosen)
        key = self._key(recipe_text(rules))
        found = self.journal.record.tried.get(key)
        if found is None:
            output = self.folder / key
            run = self.plan.config.run(rules, generate=self.plan.job.run.answers == "generate")
            run = run.model_copy(update={"output": output})
            drawn = Drawn(calibration=Found(list(self.plan.job.records[: self.plan.calibrated])))
            resume = is_unfinished(output) or output.exists()
            quantize(run, resume=resume, progress=self.plan.job.progress, drawn=drawn)
            found = self._read(output)
            self.journal.record.tried[key] = found
            self.journal.save()
            shutil.rmtree(output, ignore_errors=True)
        return found

    def _read(self, output: Path) -> Tried:
        config = self._config.model_copy(update={"model": str(output)})
        found, pages = self._pages
        result = evaluate(config, found, pages=pages, state=self.folder / "reading", progress=self.plan.job.progress)
        return _tried(result)

    @cached_property
    def _config(self) -> EvalConfig:
        config = self.plan.config
        shared = {"task", "system", "keep_duplicates", "max_pixels", "seed", "device"}
        return EvalConfig(
            model=config.model,
            data=config.eval or config.data,
            num_samples=config.eval_samples,
            baseline=str(self.plan.job.source.folder),
            forward=(config.forward,),
            **config.model_dump(include=shared),
        )

    @cached_property
    def _pages(self) -> tuple[Found, Pages]:
        job = self.plan.job
        found = Found(list(job.records[self.plan.calibrated :]))
        if self.plan.config.eval is not None:
            found = draw_records(self._config, job.progress.say)
        return found, check_pages(found.records, job.processor, job.progress, max_tokens=job.model.max_tokens)

    def _key(self, recipe: str) -> str:
        _, pages = self._pages
        return hashlib.sha256(json.dumps([recipe, pages.digests]).encode()).hexdigest()[:16]


def _tried(result: EvalResult) -> Tried:
    compared, baseline = result.comparison, result.baseline
    if compared is None or compared.kl is None or baseline is None:
        raise RunError("the recipe was read, but not compared with the original token by token")
    return Tried(
        kl=compared.kl,
        cer_difference=compared.cer_difference,
        agreement=compared.agreement,
        loop_rate=result.model.loop_rate,
        baseline_loop_rate=baseline.loop_rate,
        weight_bytes=result.model.weight_bytes,
    )
