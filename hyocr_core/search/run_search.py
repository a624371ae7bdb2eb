"""A whole search: measure, choose, try, and write what was found."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.output_file import write_output
from hyocr_core.checkpoint.unchanged import Unchanged
from hyocr_core.errors import OutputError
from hyocr_core.evaluation.reading.kept import default_state, take_lock
from hyocr_core.pages.checked import check_pages
from hyocr_core.progress import Progress, Silent
from hyocr_core.resources import versions
from hyocr_core.run.own_answers import own_answers
from hyocr_core.search.chosen_rules import rules_of
from hyocr_core.search.decision import decide
from hyocr_core.search.frontier import Frontier
from hyocr_core.search.knapsack import check_solver
from hyocr_core.search.search_config import SearchConfig
from hyocr_core.search.search_files import check_files, write_files, write_page
from hyocr_core.search.search_plan import MARK, SearchPlan, plan_search
from hyocr_core.search.search_record import SearchRecord
from hyocr_core.search.search_result import SearchResult, result_of
from hyocr_core.search.sensitivity import Sensitivity
from hyocr_core.search.trials import Trials
from hyocr_core.settings.recipe import recipe_text
from hyocr_core.wording import speaking

JOURNAL = "journal.json"


def search(config: SearchConfig, progress: Progress | None = None) -> SearchResult:
    """Find a recipe within the budget, and write it with its curve and page beside it.

    What is measured is kept in the user's cache: the same search goes on after a kill, and one of the same pages and
    candidates with another budget begins with it. Raises BadInputError for what cannot be used, and for a budget that
    nothing meets; RunError when the work fails.
    """
    progress = progress or Silent()
    check_solver()
    check_files(config.output)
    plan = plan_search(config, progress)
    watch = plan.job.watch
    sources = Unchanged(plan.job.original)
    progress.start("check", len(plan.job.original.tensors))
    plan.job.original.check_finite(plan.job.original.tensors, progress.step)
    if plan.job.lacks_answers:
        with watch.phase("answers"):
            plan = replace(plan, job=replace(plan.job, records=own_answers(plan.job, sources.digests)))
    with _kept(plan, sources) as (folder, journal):
        trials = Trials(plan, folder, journal)
        if config.trials:
            trials.check()
        with watch.phase("sensitivity"):
            effects = Sensitivity(plan, folder, journal).measure()
        frontier = Frontier.of(plan, effects)
        curve = frontier.curve()
        tried = [point for point in curve if frontier.quantizes(point)]
        with watch.phase("trials"):
            decision = decide(frontier, tried, trials.of)
    found = frontier, decision, curve, effects, watch.phases
    result = result_of(*found)
    text = recipe_text(rules_of(plan, decision.taken.point.chosen))
    _write_recipe(config.output, text, result)
    write_files(config.output, result)
    with speaking(config.lang):
        write_page(config.output, result_of(*found))
    return result


def _fingerprint(plan: SearchPlan, sources: Unchanged) -> dict[str, Any]:
    """What the sensitivity depends on."""
    config, job = plan.config, plan.job
    pages = check_pages(job.records, job.processor, job.progress, max_tokens=job.model.max_tokens)
    entries = {each.name: each.share.method.entry for each in plan.candidates}
    return {
        "model": sources.digests,
        "candidates": {each.name: each.share.config.model_dump(mode="json") for each in plan.candidates},
        "methods": {name: entry.source for name, entry in entries.items()},
        "pages": hashlib.sha256("".join(pages.digests).encode()).hexdigest(),
        "answers": hashlib.sha256("\0".join(record.answer or "" for record in pages.records).encode()).hexdigest(),
        "how": config.model_dump(include={"vision", "scored_samples", "draws", "seed", "max_pixels", "forward"}),
        "device": str(job.model.device),
        "threads": torch.get_num_threads(),
        "versions": versions(),
    }


@contextmanager
def _kept(plan: SearchPlan, sources: Unchanged) -> Iterator[tuple[Path, Journal[SearchRecord]]]:
    """The folder of this search in the user's cache, held alone, and its journal."""
    fingerprint = _fingerprint(plan, sources)
    key = hashlib.sha256(json.dumps(fingerprint, sort_keys=True).encode()).hexdigest()[:32]
    folder = default_state().with_name("search") / key
    lock = take_lock(folder, "what is measured", "set XDG_CACHE_HOME to another folder")
    if lock is None:
        raise OutputError(f"the same search runs already, in {folder}: wait for it")
    try:
        path = folder / JOURNAL
        if path.is_file():
            plan.job.progress.say(f"going on with what is kept from before, in {folder}")
            yield folder, Journal.resume(path, fingerprint, SearchRecord, sources.check)
        else:
            yield folder, Journal.start(path, fingerprint, SearchRecord(), sources.check)
    finally:
        os.close(lock)


def _write_recipe(path: Path, text: str, result: SearchResult) -> None:
    budget = ", ".join(f"{key} {value:g}" for key, value in result.budget.items())
    head = f"{MARK.decode()} {result.hyocr}: {result.nbytes} bytes of weights, for {budget}\n"
    write_output(path, head + text)
