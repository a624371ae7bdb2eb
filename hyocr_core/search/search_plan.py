"""Everything a search decides before its first long step."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from hyocr_core.checkpoint.output_file import check_output
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import CalibrationError, ConfigError
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.sources import draw_pages
from hyocr_core.progress import Progress
from hyocr_core.resources import size
from hyocr_core.run.job import Drawn, Job
from hyocr_core.search.candidates import Candidate, Group, groups_of, open_candidates
from hyocr_core.search.search_config import SearchConfig
from hyocr_core.settings.recipe import NONE

MARK = b"# Recipe by hyocr search"
"""What a recipe of a search begins with."""


@dataclass(frozen=True)
class SearchPlan:
    """job: the model and the pages; its method is that of the first candidate.

    calibrated: how many of the job's pages methods are calibrated on, the first; the change is measured on the others,
    from which no method has learned. nbytes: group -> candidate -> bytes, of those that can have it. kept_bytes: of all
    other tensors.
    """

    config: SearchConfig
    job: Job
    calibrated: int
    candidates: tuple[Candidate, ...]
    nbytes: Mapping[Group, Mapping[str, int]]
    kept_bytes: int

    def size(self, chosen: Mapping[Group, str]) -> int:
        """Bytes of the weights when each group has got what is chosen for it."""
        return self.kept_bytes + sum(self.nbytes[group][name] for group, name in chosen.items())

    @property
    def range(self) -> tuple[int, int]:
        """The smallest and the largest that can be had."""
        each = self.nbytes.values()
        return (
            self.kept_bytes + sum(min(sizes.values()) for sizes in each),
            self.kept_bytes + sum(max(sizes.values()) for sizes in each),
        )


def plan_search(config: SearchConfig, progress: Progress) -> SearchPlan:
    """Resolve and check everything that can be refused without reading weights; raises BadInputError."""
    check_output(config.output, MARK)
    found = draw_pages(
        config.data,
        config.task,
        config.system,
        config.num_samples + config.scored_samples,
        config.seed,
        keep_duplicates=config.keep_duplicates,
        say=progress.say,
    )
    learned, scored = _split(found.records, config)
    candidates = open_candidates(config, Drawn(calibration=replace(found, records=learned)), progress)
    job = candidates[0].job
    records = [*learned, *scored]
    generate = any(record.answer is None for record in records)
    if generate:
        # What is measured is what the model predicts along an answer.
        records = [replace(record, answer=None) for record in records]
    job = replace(
        job,
        run=config.run([candidates[0].rule], generate=generate),
        records=records,
        processor=load_processor(job.source.folder, config.max_pixels),
    )
    sizes = dict(_sizes(config, job, candidates))
    weights = {f"{name}.weight" for group in sizes for name in group}
    kept = sum(info.nbytes for name, info in job.reader.tensors.items() if name not in weights)
    plan = SearchPlan(config, job, len(learned), tuple(candidates), sizes, kept)
    _check_size(plan)
    return plan


def _split(records: Sequence[Record], config: SearchConfig) -> tuple[list[Record], list[Record]]:
    """Pages to calibrate on, and pages to measure on: no more than a quarter where there are few."""
    if len(records) < 2:
        raise CalibrationError(f"{config.data}: a search needs two pages, one to learn from and one to measure on")
    few = len(records) < config.num_samples + config.scored_samples
    count = max(1, min(config.scored_samples, len(records) // 4)) if few else config.scored_samples
    # Evenly spread: a source may be sorted.
    scored = {len(records) * (2 * place + 1) // (2 * count) for place in range(count)}
    return (
        [record for index, record in enumerate(records) if index not in scored],
        [records[index] for index in sorted(scored)],
    )


def _sizes(config: SearchConfig, job: Job, candidates: list[Candidate]) -> Iterator[tuple[Group, dict[str, int]]]:
    for group in groups_of(job.model, vision=config.vision):
        found = {each.name: each.nbytes(group) for each in candidates if each.covers(group)}
        if NONE in config.candidates:
            found[NONE] = sum(job.reader.tensors[f"{name}.weight"].nbytes for name in group)
        if found:
            yield group, found


def _check_size(plan: SearchPlan) -> None:
    """Raise ConfigError for a size that nothing meets, and for one that needs no search."""
    smallest, largest = plan.range
    asked = plan.config.size
    if asked is not None and asked >= largest and NONE in plan.config.candidates:
        raise ConfigError(f"--size: the weights as they are, {size(largest)} ({largest} bytes), fit into {size(asked)}")
    if asked is not None and asked < smallest:
        hint = "" if plan.config.vision else "; --vision lets it choose for the vision tower too"
        raise ConfigError(
            f"--size: these candidates make nothing as small as {size(asked)}; the smallest is {size(smallest)} "
            f"({smallest} bytes){hint}"
        )
