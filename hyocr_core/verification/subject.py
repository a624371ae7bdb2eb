"""A quantized checkpoint with its tensors sorted: what belongs to which linear, what is carried, what is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.errors import CheckpointError
from hyocr_core.formats import CACHE_SCALES, Bound, Format, Ignored, Levels, StoredFormats
from hyocr_core.formats.cache import split_name
from hyocr_core.models.dequantized import stored_dtype
from hyocr_core.models.hunyuan_vl import PublishedModel
from hyocr_core.models.known_formats import stored_formats
from hyocr_core.models.own_format import OwnFormat, own_format
from hyocr_core.models.spelling import memory_name


@dataclass
class Linear:
    """One linear of the architecture.

    name: on-disk module name as stored, the published one if nothing is. memory: in-memory name.
    format: what config.json says that stores it; None where it says nothing, or where only the method knows.
    packed: local name -> tensor on disk, of what is not a plain weight. plain: the plain weight's tensor.
    cache_scale: the tensor that scales what the attention caches in the place of its outputs.
    """

    name: str
    memory: str
    shape: tuple[int, int]
    format: Format | None = None
    packed: dict[str, str] = field(default_factory=dict)
    plain: str | None = None
    cache_scale: str | None = None

    @property
    def quantized(self) -> bool:
        return bool(self.packed)


class Subject:
    """An opened checkpoint.

    config: the quantization_config. stored: what it says; OwnFormat where only the method that wrote the checkpoint
    knows. linears: by published name, all of the architecture. others: in-memory name -> tensor on disk, of every other
    parameter. unknown, twice: tensors on disk.
    Raises CheckpointError when the folder is no checkpoint, is not quantized, or in a way that hyocr does not know.
    """

    def __init__(self, folder: Path) -> None:
        self.reader = CheckpointReader(folder)
        self.config = _quantization_config(self.reader)
        self.stored = _open_formats(self.reader, self.config)
        self.model = PublishedModel(self.reader, torch.device("meta"))
        names = self.model.memory_names
        self.linears = {
            name: Linear(name, names[name], shape, self._format_of(names[name]))
            for name, shape in self.model.linears.items()
        }
        self.others: dict[str, str] = {}
        self.unknown: list[str] = []
        self.twice: list[str] = []
        in_memory = {linear.memory: linear for linear in self.linears.values()}
        for name in self.reader.tensors:
            self._sort(name, in_memory)

    @property
    def own(self) -> OwnFormat | None:
        """The method that alone can read the linears; None where installed formats store them."""
        return self.stored if isinstance(self.stored, OwnFormat) else None

    @property
    def ignored(self) -> Ignored:
        """What config.json says of linears that are not quantized."""
        return self.stored.ignored if isinstance(self.stored, StoredFormats) else Ignored("", None, "exact")

    def _format_of(self, memory: str) -> Format | None:
        return self.stored.of(memory) if isinstance(self.stored, StoredFormats) else None

    def _sort(self, name: str, linears: Mapping[str, Linear]) -> None:
        memory = memory_name(name)
        module, local = split_name(memory)
        if module in linears and local != "bias":
            self._assign(linears[module], local, name)
        elif memory in self.others:
            self.twice.append(name)
        elif memory in self.model.parameters:
            self.others[memory] = name
        elif name not in self.model.computed:
            self.unknown.append(name)

    def _assign(self, linear: Linear, local: str, name: str) -> None:
        is_plain = local == "weight" and not self._holds_codes(local, name)
        if local in CACHE_SCALES.values() and self.own is None:
            linear.cache_scale = name
        elif local in linear.packed or (is_plain and linear.plain is not None):
            self.twice.append(name)
        elif is_plain:
            linear.plain = name
        else:
            linear.packed[local] = name
        linear.name = split_name(name)[0]

    def _holds_codes(self, local: str, name: str) -> bool:
        if isinstance(self.stored, OwnFormat):
            return split_name(name)[0] in self.stored.shapes
        dtype = self.reader.tensors[name].dtype
        return any(written.holds_codes(local, dtype) for written in self.stored.formats)

    @cached_property
    def quantized(self) -> dict[str, Linear]:
        """The linears that have packed tensors, by published name."""
        return {name: linear for name, linear in self.linears.items() if linear.quantized}

    @cached_property
    def problems(self) -> dict[str, list[str]]:
        """What does not fit the format in the packed tensors of a quantized linear, by published name."""
        return {name: list(self._problems(linear)) for name, linear in self.quantized.items()}

    def _problems(self, linear: Linear) -> Iterator[str]:
        if self.own is not None:
            yield from self.own.problems(linear.name, self.packed(linear), linear.shape)
        elif linear.format is None:
            yield "is quantized, but config.json says of no format that it stores this layer"
        else:
            infos = {local: self.reader.tensors[name] for local, name in linear.packed.items()}
            stored = {local: (info.shape, info.dtype) for local, info in infos.items()}
            unfit = list(linear.format.problems(stored, linear.shape))
            yield from unfit or self._group_problems(linear, linear.format)

    def _group_problems(self, linear: Linear, written: Format) -> Iterator[str]:
        name = linear.packed.get(written.group_index)
        if name is not None:
            index, count = self.reader.read([name])[name], written.groups(linear.shape)
            low, high = (bound.item() for bound in index.aminmax())
            if low < 0 or high >= count:
                yield f"{written.group_index} names groups {low} to {high}, there are {count}"

    @cached_property
    def readable(self) -> dict[str, Linear]:
        """The quantized linears whose tensors all fit the format."""
        return {name: linear for name, linear in self.quantized.items() if not self.problems[name]}

    def packed(self, linear: Linear) -> dict[str, Tensor]:
        """The packed tensors of a linear by local name."""
        tensors = self.reader.read(linear.packed.values())
        return {local: tensors[name] for local, name in linear.packed.items()}

    def weight(self, linear: Linear) -> Tensor:
        """The dequantized weight of a readable linear, (N, K) fp32."""
        return self.dequantized(linear, self.packed(linear))

    def dequantized(self, linear: Linear, tensors: Mapping[str, Tensor]) -> Tensor:
        """The same of its packed tensors, by local name."""
        if self.own is not None:
            return self.own.unpack(linear.name, tensors).float()
        return self._stores(linear).dequantize(tensors, linear.shape, torch.float32)

    def groups(self, linear: Linear) -> int:
        """The groups of each output that have a scale of their own, as far as that is known."""
        return 1 if self.own is not None else self._stores(linear).groups(linear.shape)

    def levels(self, linear: Linear) -> Levels | None:
        """Where the weights of a readable linear stand among the values of its format, as far as that is known."""
        return None if self.own is not None else self._stores(linear).levels(self.packed(linear), linear.shape)

    def bound(self, linear: Linear) -> Bound:
        """How far the weight of a readable linear may be from the original one."""
        return self.own.bound if self.own is not None else self._stores(linear).bound

    def _stores(self, linear: Linear) -> Format:
        # A readable linear has one.
        return cast("Format", linear.format)

    def cached(self) -> Iterable[tuple[Linear, str]]:
        """The linears whose outputs, or what is made of them, an attention caches; and by in-memory name the modules
        that put out what is cached."""
        for place in self.model.decoder_blocks:
            for path, module in place.wiring.cached.items():
                yield self.linears[self.model.disk_module(f"{place.path}.{path}")], f"{place.path}.{module}"

    @property
    def quant_method(self) -> str:
        """What config.json calls the format."""
        return str(self.config.get("quant_method", "unnamed"))

    def published(self, linear: Linear) -> str:
        """The published name of a linear, by which `linears` has it."""
        return self.model.disk_module(linear.memory)

    def fused(self) -> Iterable[list[Linear]]:
        """The linears that runtimes fuse into one weight."""
        for place in (*self.model.vision_blocks, *self.model.decoder_blocks):
            for group in self.model.groups(place) if place.wiring.fused else ():
                if len(group) > 1:
                    yield [self.linears[name] for name in group]


def _open_formats(reader: CheckpointReader, config: Mapping[str, Any]) -> StoredFormats | OwnFormat:
    try:
        return stored_formats(config)
    except CheckpointError as error:
        return own_format(reader.folder, stored_dtype(reader), error)


def _quantization_config(reader: CheckpointReader) -> Mapping[str, Any]:
    config = reader.config.get("quantization_config")
    if not config:
        raise CheckpointError(f"{reader.folder / 'config.json'}: has no quantization_config: this is not quantized")
    return cast("Mapping[str, Any]", config)
