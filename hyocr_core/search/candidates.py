"""What a group of layers may get, and how many bytes it then takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hyocr_core.contract.config import WeightedConfig
from hyocr_core.errors import ConfigError, HyocrError
from hyocr_core.formats import StoredFormats
from hyocr_core.models.known_formats import known_formats
from hyocr_core.progress import Progress
from hyocr_core.run.job import Drawn, Job, prepare
from hyocr_core.search.search_config import KEEP, SearchConfig
from hyocr_core.settings.run_file import parse_override

Group = tuple[str, ...]
"""On-disk names of linears that share an input, and that runtimes may fuse."""


@dataclass(frozen=True)
class Candidate:
    """A method with its options. name: as it was given. job: what it would be for all layers at once."""

    name: str
    method: str
    options: Mapping[str, Any]
    job: Job
    formats: StoredFormats

    def covers(self, group: Group) -> bool:
        """Whether it can quantize all of a group."""
        return all(name in self.job.plan.quantized for name in group)

    def nbytes(self, group: Group) -> int:
        """Bytes of what it writes of a group's weights."""
        shapes = self.job.plan.quantized
        stored = ((self.formats.of(name), shapes[name]) for name in group)
        return sum(written.nbytes(shape) for written, shape in stored if written is not None)


def open_candidates(config: SearchConfig, drawn: Drawn, progress: Progress) -> list[Candidate]:
    """Every candidate but `none`, checked on this model; raises ConfigError or MethodError naming the candidate."""
    names = [name for name in config.candidates if name != KEEP]
    if not names:
        raise ConfigError(f"candidates: {KEEP} alone leaves nothing to choose; name a method, such as gptq")
    return [_open(name, config, drawn, progress) for name in names]


def _open(name: str, config: SearchConfig, drawn: Drawn, progress: Progress) -> Candidate:
    where = f"candidate {name!r}"
    method, options = _parse(name, where)
    try:
        job = prepare(config.run(method, options | ({"quant_vit": True} if config.vision else {})), progress, drawn)
    except HyocrError as error:
        error.args = (f"{where}: {error}",)
        raise
    _check(job, where)
    formats = known_formats(job.quantization_config)
    if formats is None or any(formats.of(layer) is None for layer in job.plan.quantized):
        raise ConfigError(f"{where}: it writes a format that hyocr does not know, and so its size is not known")
    return Candidate(name, method, options, job, formats)


def _parse(name: str, where: str) -> tuple[str, dict[str, Any]]:
    method, *options = name.split()
    return method, dict(parse_override(option, f"{where}:") for option in options)


def _check(job: Job, where: str) -> None:
    """Refuse what cannot be measured one group at a time."""
    if job.method.spec.rescales_block:
        raise ConfigError(
            f"{where}: {job.method.spec.name} rescales what stands before a layer, so that a group cannot be measured "
            "or chosen by itself; take a method that does not"
        )
    if job.method.implements("prepare"):
        raise ConfigError(f"{where}: {job.method.spec.name} decides on the whole model; take a method that does not")
    if isinstance(job.config, WeightedConfig) and job.config.weighting != "uniform":
        raise ConfigError(f"{where}: weighting: a search counts all tokens the same; leave it out")
