"""The YAML schema of the reference toolkit, AngelSlim, read into the keys of `hyocr_core.contract.config.RunConfig`."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, Self

from pydantic import Field, model_validator

from hyocr_core.contract.config import FrozenModel, parse_config
from hyocr_core.outside.home import expanded
from hyocr_core.plugin.registry import installed_methods

REFERENCE_KEYS = ("compression", "global")
"""A file with one of these at its top is the reference's."""

METHODS: Mapping[str, tuple[str, Mapping[str, str]]] = MappingProxyType(
    {
        "fp8_static": ("fp8", {"activation_scheme": "static"}),
        "fp8_dynamic": ("fp8", {"activation_scheme": "dynamic"}),
        "int4_gptq": ("gptq", {}),
        "int4_awq": ("awq", {}),
    }
)
"""The reference's name of a method -> ours, and the options that the name stands for."""

VISION: Mapping[str, str] = MappingProxyType({"fp8": "fp8_dynamic"})
"""A method's name -> what it means for the vision tower alone, where every runtime should read it."""

_DEFAULT_GROUP = 128
"""What the reference takes where a file gives no group size, or -1."""

_GLOBS = frozenset("*?[")
_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")
_AS_DATASET = ":test?prompt=query&text=label"
"""What the reference reads of a dataset, beside the column `image`; of a list of answers the first."""


def our_method(name: str) -> tuple[str, Mapping[str, str]]:
    """Our name in the place of the reference's, and the options that its name stands for; another name as it is.

    A plugin that has the very name goes first.
    """
    if name not in METHODS or any(entry.name == name for entry in installed_methods()):
        return name, {}
    return METHODS[name]


class QuantMethod(FrozenModel):
    """Granularity of the scales, and the extras of the integer methods."""

    weight: Literal["per-tensor", "per-channel", "per-group"] | None = Field(
        None, description="what shares a weight scale"
    )
    activation: Literal["per-tensor", "per-token"] | None = Field(
        None, description="what shares an activation scale (fp8)"
    )
    group_size: int | None = Field(None, description="input channels that share a scale (int4); -1 is 128")
    zero_point: bool | None = Field(None, description="store zero points (int4)")
    mse_range: bool | None = Field(None, description="search the clipping range of each group (int4)")


class Quantization(FrozenModel):
    """The method and its options."""

    name: Literal["fp8_static", "fp8_dynamic", "int4_gptq", "int4_awq"] = Field(description="quantization method")
    save_name: Literal["fp8", "compressed-tensors"] | None = Field(None, description="checkpoint format to write")
    bits: Literal[4, 8] | None = Field(None, description="bits per weight")
    quant_method: QuantMethod = Field(default_factory=QuantMethod, description="granularity and extras")
    ignore_layers: tuple[str, ...] = Field((), description="layers to leave unquantized: parts of their names")
    quant_vit: bool = Field(False, description="quantize the vision tower too")

    @model_validator(mode="after")
    def _no_contradiction(self) -> Self:
        problem = next(_fp8_problems(self) if self.is_fp8 else _int4_problems(self), None)
        if problem is not None:
            raise ValueError(problem)
        return self

    @property
    def is_fp8(self) -> bool:
        return self.name.startswith("fp8")


class Global(FrozenModel):
    """What concerns the whole run."""

    save_path: str | None = Field(None, description="folder to write into: a folder with the name of the file")


class Model(FrozenModel):
    """The checkpoint, and how the reference loads it."""

    name: Literal["HunyuanVL"] = Field("HunyuanVL", description="the reference's name of the architecture")
    model_path: str | None = Field(None, description="checkpoint folder, or a model on the hub")
    trust_remote_code: bool = Field(False, description="run code of the checkpoint; never done")
    low_cpu_mem_usage: bool = Field(True, description="load with little memory; always done")
    use_cache: bool = Field(False, description="keep a key/value cache while calibrating; never done")
    torch_dtype: str = Field("auto", description="dtype to load in; always the checkpoint's own")
    device_map: str | dict[str, Any] = Field("auto", description="where to load; see --device")


class Compression(FrozenModel):
    """What to do to the model."""

    name: Literal["PTQ", "quantization"] = Field(description="kind of compression")
    quantization: Quantization = Field(description="method and options")


class Dataset(FrozenModel):
    """Calibration data."""

    name: Literal["MultiModalDataset"] = Field("MultiModalDataset", description="the reference's reader of pages")
    data_path: str | None = Field(
        None, description="calibration source: a JSONL file, or a dataset on the hub or in a folder, OWNER/NAME"
    )
    max_seq_length: int | None = Field(None, ge=1, description="tokens the reference cuts or pads a sample to")
    num_samples: int | None = Field(None, ge=1, description="calibration samples to use")
    batch_size: int = Field(1, ge=1, description="samples the reference runs together")


class ReferenceFile(FrozenModel):
    """A whole file."""

    global_: Global = Field(default_factory=Global, alias="global", description="what concerns the whole run")
    model: Model = Field(default_factory=Model, description="the checkpoint")
    compression: Compression = Field(description="what to do to it")
    dataset: Dataset = Field(default_factory=Dataset, description="calibration data")


class Translation(NamedTuple):
    """run: the keys of RunConfig that the file sets. notes: one line for each key that is honoured differently."""

    run: dict[str, Any]
    notes: tuple[str, ...]


def is_reference(data: Mapping[str, Any]) -> bool:
    """Tell whether a file's content is in the reference's schema."""
    return any(key in data for key in REFERENCE_KEYS)


def translate(data: Mapping[str, Any], where: str, name: str, given: Collection[str]) -> Translation:
    """Read a file in the reference's schema; ConfigError of one line for unknown keys and contradictions.

    name: of the file, without its suffix; the reference writes into a folder of that name. given: keys of a RunConfig
    that flags say, whatever the file does.
    """
    file = parse_config(ReferenceFile, data, where)
    quantization = file.compression.quantization
    method, fixed = METHODS[quantization.name]
    own_options = _fp8_options(quantization) if quantization.is_fp8 else _int4_options(quantization, method)
    options: dict[str, Any] = {**fixed, **own_options, "quant_vit": quantization.quant_vit}
    run = {
        "model": file.model.model_path,
        "output": file.global_.save_path and str(Path(file.global_.save_path, name)),
        "method": method,
        "calib": _source(file.dataset.data_path),
        "num_samples": file.dataset.num_samples,
        "options": _without_none(options) | {"ignore": list(_ignore(quantization))},
    }
    return Translation(_without_none(run), tuple(_notes(file, given)))


def _source(data_path: str | None) -> str | None:
    """The source as `--calib` names it; what the reference would load as a dataset is one of the scheme `hf`."""
    return f"hf:{data_path}{_AS_DATASET}" if data_path is not None and _is_dataset(data_path) else data_path


def _is_dataset(data_path: str) -> bool:
    path = expanded(data_path)
    if path.is_dir():
        return any(next(path.rglob(pattern), None) for pattern in ("*.parquet", "*.arrow"))
    return not path.exists() and _HUB_ID.fullmatch(data_path) is not None


def _fp8_problems(quantization: Quantization) -> Iterator[str]:
    """Yield what contradicts an FP8 method, with the fix."""
    name, asked = quantization.name, quantization.quant_method
    if quantization.bits == 4:
        yield f"{name} stores 8 bits; write bits: 8, or name: int4_gptq or int4_awq"
    if asked.weight == "per-group" or asked.group_size not in (None, -1):
        yield f"{name} has no groups; write weight: per-tensor or per-channel and no group_size"
    if asked.zero_point or asked.mse_range:
        yield f"{name} has neither zero_point nor mse_range; leave them out"
    if name == "fp8_static" and asked.activation == "per-token":
        yield "fp8_static has one activation scale per tensor; write activation: per-tensor, or name: fp8_dynamic"


def _int4_problems(quantization: Quantization) -> Iterator[str]:
    """Yield what contradicts an integer method, with the fix."""
    name, asked = quantization.name, quantization.quant_method
    if asked.weight in ("per-tensor", "per-channel"):
        yield f"{name} has scales per group; write weight: per-group"
    if asked.activation is not None:
        yield f"{name} leaves activations as they are; leave activation out"
    if quantization.save_name == "fp8":
        yield f"{name} cannot be stored as fp8; write save_name: compressed-tensors, or leave it out"
    if asked.zero_point and quantization.bits == 8:
        yield "zero_point: true with bits: 8 is read by no runtime; write zero_point: false, or bits: 4"


def _fp8_options(quantization: Quantization) -> dict[str, Any]:
    strategies = {"per-tensor": "tensor", "per-channel": "channel"}
    weight = quantization.quant_method.weight
    return {"weight_strategy": weight and strategies[weight], "format": quantization.save_name}


def _int4_options(quantization: Quantization, method: str) -> dict[str, Any]:
    asked = quantization.quant_method
    group_size = _DEFAULT_GROUP if asked.group_size in (None, -1) else asked.group_size
    options = {"bits": quantization.bits or 4, "group_size": group_size, "format": _int4_format(quantization)}
    if method == "awq":
        return options | {"zero_point": asked.zero_point, "mse_range": asked.mse_range}
    return options | {"sym": None if asked.zero_point is None else not asked.zero_point, "mse": asked.mse_range}


def _int4_format(quantization: Quantization) -> str | None:
    """The format asked for, or that from which runtimes read GPTQ's zero points; None leaves it to the method."""
    with_zeros = quantization.name == "int4_gptq" and quantization.quant_method.zero_point
    return "compressed-tensors" if with_zeros else quantization.save_name


def _ignore(quantization: Quantization) -> Iterator[str]:
    """Patterns for `ignore_layers`, where a part of a name matches every layer that has it in its name."""
    for layer in quantization.ignore_layers:
        if _is_embedding(layer):
            continue
        whole = layer == "lm_head" or layer.startswith(("model.", "vit.")) or not _GLOBS.isdisjoint(layer)
        yield layer if whole else f"*{layer}*"


def _is_embedding(layer: str) -> bool:
    return layer.endswith("embed_tokens")


def _notes(file: ReferenceFile, given: Collection[str]) -> Iterator[str]:
    for section, key, ours, text in (
        ("model", "trust_remote_code", False, "no code of a checkpoint is ever run"),
        ("model", "low_cpu_mem_usage", True, "weights are always streamed block by block"),
        ("model", "use_cache", False, "calibration keeps no key/value cache"),
        ("model", "torch_dtype", "auto", "weights are read in the dtype of the checkpoint"),
        ("model", "device_map", "auto", "the whole run is on one device, the one of --device"),
        (
            "dataset",
            "max_seq_length",
            None,
            "no sample is padded; an answer is cut where the model takes no more",
        ),
        ("dataset", "batch_size", 1, "samples are run one at a time, so that none is padded"),
    ):
        part = getattr(file, section)
        if key in part.model_fields_set and getattr(part, key) != ours:
            yield f"{section}.{key}: {text}"
    if "calib" not in given and _source(file.dataset.data_path) != file.dataset.data_path:
        yield f"dataset.data_path: calibrates on the split test of {file.dataset.data_path}: evaluate on other pages"
    yield from _quantization_notes(file.compression.quantization)


def _quantization_notes(quantization: Quantization) -> Iterator[str]:
    where, asked = "compression.quantization", quantization.quant_method
    if not quantization.is_fp8 and quantization.bits == 8:
        yield f"{where}.bits: 8 bits are stored, whatever the name {quantization.name} says"
    if quantization.name == "fp8_dynamic" and asked.activation == "per-tensor":
        yield f"{where}.quant_method.activation: dynamic activation scales are per token"
    if not quantization.is_fp8 and _int4_format(quantization) != quantization.save_name:
        yield f"{where}.quant_method.zero_point: stored as compressed-tensors, where runtimes read it"
    if any(_is_embedding(layer) for layer in quantization.ignore_layers):
        yield f"{where}.ignore_layers: embeddings are never quantized"


def _without_none(data: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in data.items() if value is not None}
