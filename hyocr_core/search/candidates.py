"""What a group of layers may get, and how many bytes it then takes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial

import torch

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.resolve import resolve_model
from hyocr_core.contract.config import MethodConfig, parse_config
from hyocr_core.errors import ConfigError, HyocrError
from hyocr_core.formats import StoredFormats
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.known_formats import known_formats
from hyocr_core.plugin.method import Method
from hyocr_core.plugin.registry import load_method
from hyocr_core.progress import Progress
from hyocr_core.run.assignment import sharing
from hyocr_core.run.job import Drawn, Job, prepare
from hyocr_core.run.shares import Share
from hyocr_core.search.search_config import SearchConfig
from hyocr_core.settings.recipe import NONE, RecipeRule
from hyocr_core.settings.run_file import parse_override

Group = tuple[str, ...]
"""On-disk names of linears that share an input, and that runtimes may fuse."""


@dataclass(frozen=True)
class Candidate:
    """A method with its options. name: as it was given. rule: the same in a recipe. job: it alone, on all linears."""

    name: str
    rule: RecipeRule
    job: Job
    formats: StoredFormats

    @property
    def share(self) -> Share:
        """The linears that it quantizes."""
        return self.job.main

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
    names = [name for name in config.candidates if name != NONE]
    if not names:
        raise ConfigError(f"candidates: {NONE} alone leaves nothing to choose; name a method, such as gptq")
    model = cache(partial(_model, config))
    return [_open(name, config, model, drawn, progress) for name in names]


def _open(
    name: str, config: SearchConfig, model: Callable[[], HunYuanVL | None], drawn: Drawn, progress: Progress
) -> Candidate:
    where = f"candidate {name!r}"
    try:
        job = prepare(config.run([_rule(name, where, model(), vision=config.vision)]), progress, drawn)
    except HyocrError as error:
        error.args = (str(error) if str(error).startswith(where) else f"{where}: {error}",)
        raise
    if job.main.method.spec.rescales_block:
        raise ConfigError(
            f"{where}: {job.main.name} rescales what stands before a layer, so that a group can be neither measured "
            "nor chosen by itself; take a method that does not"
        )
    formats = known_formats(job.quantization_config)
    if formats is None or any(formats.of(layer) is None for layer in job.plan.quantized):
        raise ConfigError(f"{where}: it writes a format that hyocr does not know, and so its size is not known")
    [rule] = job.run.recipe or ()
    return Candidate(name, rule, job, formats)


def _rule(name: str, where: str, model: HunYuanVL | None, *, vision: bool) -> RecipeRule:
    """The rule of `gptq bits=8`, in the format that has room for others where its method has that."""
    selector, *given = name.split()
    options = dict(parse_override(option, f"{where}:") for option in given)
    method = load_method(selector)
    shared = dict(sharing(method, options, where))
    checked = method.config(shared, where)
    match = ["*"] if model is None else _accepted(method, checked, model, vision=vision)
    return parse_config(RecipeRule, {"match": match, "method": selector, "options": shared}, where)


def _model(config: SearchConfig) -> HunYuanVL | None:
    """The model without its weights; None for one that is quantized already, which a run refuses."""
    reader = CheckpointReader(resolve_model(config.model, config.revision).folder)
    quantized = reader.config.get("quantization_config") is not None
    return None if quantized else HunYuanVL(reader, torch.device("meta"))


def _accepted(method: Method, options: MethodConfig, model: HunYuanVL, *, vision: bool) -> list[str]:
    """The linears that a method takes with these options. Raises what it says of the last when it takes none."""
    taken: list[str] = []
    refused = None
    for group in groups_of(model, vision=vision):
        try:
            method.check_layers({name: model.linears[name] for name in group}, options)
            taken += group
        except ConfigError as error:
            refused = error
    if not taken and refused is not None:
        raise refused
    return taken


def groups_of(model: HunYuanVL, *, vision: bool) -> Iterator[Group]:
    """The groups to choose for, in order of execution."""
    for place in (*(model.vision_blocks if vision else ()), *model.decoder_blocks):
        yield from model.groups(place)
