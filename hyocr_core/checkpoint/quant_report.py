"""`hyocr_report.json`: what was done to a checkpoint. The pipeline writes it; whoever loads the checkpoint reads it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Field

from hyocr_core.contract.backend import Forward
from hyocr_core.contract.config import FrozenModel, parse_config
from hyocr_core.contract.decoding import Decoding
from hyocr_core.errors import CheckpointError
from hyocr_core.outside.json_text import read_object
from hyocr_core.wording import Language, tr

FILE_NAME = "hyocr_report.json"


Task: TypeAlias = Annotated[
    str | None, Field(description="official prompt that pages without a question were asked, if not the default one")
]
System: TypeAlias = Annotated[
    str | None, Field(description="system message of all pages, if another than their own or the empty one")
]


class MethodRecord(FrozenModel):
    name: str
    distribution: str
    version: str
    config: dict[str, Any]

    @property
    def selector(self) -> str:
        """As a run names it."""
        return f"{self.distribution}:{self.name}"


class ModelRecord(FrozenModel):
    source: str = Field(description="hub id, or the folder's name: never a local path")
    revision: str | None
    subfolder: str | None = Field(None, description="folder in the hub's repository; None for its root")
    sha256: dict[str, str] = Field(description="digest of every file the result depends on")

    @property
    def name(self) -> str:
        """As a command names it."""
        return self.source if self.subfolder is None else f"{self.source}/{self.subfolder}"

    @property
    def typed(self) -> str:
        """What a command takes: the model of the hub at its revision; of a folder no more than where its path goes."""
        if "/" not in self.source:
            return f"path/to/{self.source}"
        revision = "" if self.revision is None else f"@{self.revision}"
        return f"{self.source}{revision}{'' if self.subfolder is None else f'/{self.subfolder}'}"


class CalibrationRecord(FrozenModel):
    source: str
    seed: int
    samples: int
    tokens: int
    max_pixels: int | None = Field(None, description="most pixels of a page, if fewer than the processor allows")
    task: Task = None
    system: System = None
    answers: str = Field("data", description="what answers the pages had: data, generate or none; see RunConfig")
    forward: Forward = Field("transformers", description="what the model computed; see RunConfig")
    decoding: Decoding | None = Field(None, description="how the model wrote them, if it did")
    failures: dict[str, str] = Field(description="sample -> why it could not be used")
    sha256: str = Field(description="digest over the samples used")
    page_sha256: list[str] = Field([], description="digest of the pixels of every page used")
    copies: dict[str, str] = Field({}, description="page that was left out -> of which other it is a copy")


class LayerRecord(FrozenModel):
    name: str
    shape: tuple[int, int]
    method: str | None = Field(None, description="distribution:name of the method, where it is not the main one")
    seconds: float
    metrics: dict[str, float]
    degraded: str | None
    options: dict[str, Any] = Field({}, description="options of the method in which this layer differs from its record")


class MetricRecord(FrozenModel):
    """A metric that was named for an evaluation, as far as its numbers need it to be read."""

    title: str
    unit: str = Field(description="`%` for a fraction")
    better: Literal["smaller", "larger"]
    distribution: str
    version: str


class Measure(FrozenModel):
    """What a metric says of all pages, or how far two checkpoints are apart by it. interval: 95 %, over pages."""

    value: float
    interval: tuple[float, float] | None


class ScoreRecord(FrozenModel):
    """How one checkpoint read the pages. Rates are fractions; what needs transcripts is None without them."""

    runtime: str
    forward: Forward | None = Field(None, description="what the model computed; None where nobody knows")
    cer: float | None
    cer_interval: tuple[float, float] | None = Field(description="95 %, bootstrap over pages")
    wer: float | None
    loops: int = Field(description="pages that end in a repetition loop")
    cut: int = Field(description="pages that reached the limit of new tokens")
    pages_per_second: float
    tokens_per_second: float
    weight_bytes: int | None = Field(description="size of the weight files")
    agreement: float | None = Field(None, description="fraction of next tokens that are the original's too")
    agreement_interval: tuple[float, float] | None = Field(None, description="95 %, over pages")
    kl: float | None = Field(None, description="KL(original || this), mean per token in nats")
    identical: int | None = Field(None, description="pages with the very text of the original")
    metrics: dict[str, float] = Field({}, description="of the metrics that were named, by name")


Outcome: TypeAlias = Literal["worse", "better", "no measurable loss", "unknown"]


class VerdictRecord(FrozenModel):
    """What an evaluation comes to, never more certain than its pages allow."""

    text: str = Field(description="one or two sentences, without names of pages")
    outcome: Outcome = Field(description="of the CER beside the baseline's; unknown without either, or on a few pages")
    smallest_loss: float | None = Field(description="of CER that these pages could have shown, a fraction, if known")
    warnings: tuple[str, ...] = Field((), description="why the numbers may mean nothing")


class EvaluationRecord(FrozenModel):
    """How the checkpoint reads; without texts of pages and without local paths, since it is published."""

    data: str
    seed: int
    pages: int
    transcribed: int | None = Field(None, description="pages with a transcript, which is what error rates are of")
    decoding: Decoding
    max_pixels: int | None = Field(None, description="most pixels of a page, if fewer than the processor allows")
    task: Task = None
    system: System = None
    device: str
    model: ScoreRecord
    baseline: ScoreRecord | None = Field(description="the checkpoint it was made from")
    rounded: ScoreRecord | None = Field(description="the same linears rounded to nearest in the same format")
    cer_difference: float | None = Field(description="the model's CER less the baseline's")
    cer_difference_interval: tuple[float, float] | None = Field(description="95 %, paired bootstrap over pages")
    metrics: dict[str, MetricRecord] = Field(
        {}, description="the metrics that were named, or follow from the task, by name"
    )
    differences: dict[str, Measure] = Field({}, description="by them, the model's less the original's, paired")
    verdict: VerdictRecord | None = None


class GateFigure(FrozenModel):
    metric: str
    bound: float
    value: float = Field(description="in the unit of the bound")
    passed: bool
    unit: str = Field("", description="of value and bound, in words")


class GateRecord(FrozenModel):
    """What a gate asked, and the answer."""

    accepted: bool
    figures: tuple[GateFigure, ...]


class ObserverRecord(FrozenModel):
    """An observer that was named for the run; the checkpoint does not depend on it."""

    name: str
    distribution: str
    version: str
    calls: int = Field(description="calls of hooks that it was told of")
    failed: str | None = Field(description="where and by what error it was switched off")


class QuantReport(FrozenModel):
    """The whole file. `layers` are the quantized linears by on-disk module name, in model order."""

    schema_version: int = 2
    hyocr: str
    lang: Language = Field("en", description="what the model card and the report page are written in")
    method: MethodRecord = Field(description="the one at work, of several the main one")
    further: tuple[MethodRecord, ...] = Field((), description="the other methods of a recipe")
    model: ModelRecord
    calibration: CalibrationRecord | None
    ignored: tuple[str, ...]
    fallbacks: dict[str, str] = Field(
        {}, description="linears that the options cannot hold -> why; they have options of their own, or are `ignored`"
    )
    rescaled: tuple[str, ...] = Field(description="tensors that are not quantized but were changed by folded scales")
    prepared: tuple[str, ...] = Field((), description="tensors that the method replaced before the first block")
    layers: tuple[LayerRecord, ...]
    config_changes: dict[str, Any] = Field({}, description="what the method changed in config.json besides")
    quantization_config: dict[str, Any] | None = Field(None, description="what config.json says of the formats")
    output_sha256: dict[str, str] = Field(
        description="digest of every file of the result that reading depends on: weights, config.json, tokenizer, "
        "processor, chat template"
    )
    weight_bytes_before: int
    weight_bytes_after: int
    phases: dict[str, float] = Field(description="seconds of wall time by phase, of this run only when resumed")
    peak_rss_bytes: int
    resumed_after_block: int | None
    environment: dict[str, str]
    evaluation: EvaluationRecord | None = None
    gate: GateRecord | None = None
    observers: tuple[ObserverRecord, ...] = ()

    @property
    def methods(self) -> tuple[MethodRecord, ...]:
        """All that were at work, the main one first."""
        return (self.method, *self.further)

    @property
    def title(self) -> str:
        """The methods in words."""
        return " + ".join(method.name for method in self.methods)

    def method_of(self, layer: LayerRecord) -> MethodRecord:
        """The one that quantized a layer."""
        return next((method for method in self.further if method.selector == layer.method), self.method)

    @property
    def degraded(self) -> tuple[LayerRecord, ...]:
        return tuple(layer for layer in self.layers if layer.degraded is not None)

    @property
    def exceptions(self) -> tuple[str, ...]:
        """What became of the linears that the options cannot hold, in words."""
        return tuple(exceptions(self.fallbacks, {layer.name for layer in self.layers}))


def exceptions(fallbacks: Mapping[str, str], quantized: Collection[str]) -> Iterator[str]:
    """Say what becomes of linears, name -> why, that options cannot hold; a line for all of one fate and reason."""
    members: dict[tuple[str, str], list[str]] = {}
    for name, why in fallbacks.items():
        own = name in quantized
        fate = tr("quantized with options of its own") if own else tr("left in full precision")
        members.setdefault((fate, why), []).append(name)
    for (fate, why), names in members.items():
        more = tr("{names} and {count} more", names=names[0], count=len(names) - 1) if len(names) > 1 else names[0]
        yield tr("{names}: {fate}: {why}", names=more, fate=fate, why=why)


def read_report(folder: Path) -> QuantReport:
    """The report of a checkpoint hyocr wrote; CheckpointError when there is none or it cannot be read."""
    path = folder / FILE_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder}: is quantized, but not by hyocr ({FILE_NAME} is missing)")
    return parse_config(QuantReport, read_object(path, CheckpointError), str(path))
