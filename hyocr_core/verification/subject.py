"""A quantized checkpoint with its tensors sorted: what belongs to which linear, what is carried, what is unknown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyocr_core.checkpoint.quant_report import FILE_NAME, read_report
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.errors import BadInputError, CheckpointError
from hyocr_core.formats import Format, read_format, read_ignored
from hyocr_core.formats.cache import CACHE_SCALES, split_name
from hyocr_core.formats.ignored import Ignored
from hyocr_core.models.hunyuan_vl import PublishedModel
from hyocr_core.verification.own_format import OwnFormat

GROUP_INDICES = {"g_idx", "weight_g_idx"}


@dataclass
class Linear:
    """One linear of the architecture.

    name: on-disk module name as stored, the published one if nothing is. memory: in-memory name.
    packed: local name -> tensor on disk, of what is not a plain weight. plain: the plain weight's tensor.
    cache_scale: the tensor that scales what the attention caches in the place of its outputs.
    """

    name: str
    memory: str
    shape: tuple[int, int]
    packed: dict[str, str] = field(default_factory=dict)
    plain: str | None = None
    cache_scale: str | None = None

    @property
    def quantized(self) -> bool:
        return bool(self.packed)


class Subject:
    """An opened checkpoint.

    config: the quantization_config. format: what stores the linears; OwnFormat where only the method that wrote the
    checkpoint knows. ignored: what config.json says of linears that are not quantized. linears: by published name, all
    of the architecture. others: in-memory name -> tensor on disk, of every other parameter. unknown, twice: tensors on
    disk.
    Raises CheckpointError when the folder is no checkpoint, is not quantized, or in a way that hyocr does not know.
    """

    def __init__(self, folder: Path) -> None:
        self.reader = CheckpointReader(folder)
        self.config = _quantization_config(self.reader)
        self.format, self.ignored = _open_format(folder, self.config)
        self.model = PublishedModel(self.reader, torch.device("meta"))
        names = self.model.memory_names
        self.linears = {name: Linear(name, names[name], shape) for name, shape in self.model.linears.items()}
        self.others: dict[str, str] = {}
        self.unknown: list[str] = []
        self.twice: list[str] = []
        in_memory = {linear.memory: linear for linear in self.linears.values()}
        for name in self.reader.tensors:
            self._sort(name, in_memory)

    def _sort(self, name: str, linears: Mapping[str, Linear]) -> None:
        memory = self.model.memory_name(name)
        module, local = split_name(memory)
        if module in linears and local != "bias":
            self._assign(linears[module], local, name)
        elif memory in self.others:
            self.twice.append(name)
        elif memory in self.model.parameters:
            self.others[memory] = name
        else:
            self.unknown.append(name)

    def _assign(self, linear: Linear, local: str, name: str) -> None:
        is_plain = local == "weight" and not self._holds_codes(local, name)
        if local in CACHE_SCALES.values() and isinstance(self.format, Format):
            linear.cache_scale = name
        elif local in linear.packed or (is_plain and linear.plain is not None):
            self.twice.append(name)
        elif is_plain:
            linear.plain = name
        else:
            linear.packed[local] = name
        linear.name = split_name(name)[0]

    def _holds_codes(self, local: str, name: str) -> bool:
        if isinstance(self.format, OwnFormat):
            return self.format.holds(split_name(name)[0])
        return self.format.holds_codes(local, self.reader.tensors[name].dtype)

    @cached_property
    def quantized(self) -> dict[str, Linear]:
        """The linears that have packed tensors, by published name."""
        return {name: linear for name, linear in self.linears.items() if linear.quantized}

    @cached_property
    def problems(self) -> dict[str, list[str]]:
        """What does not fit the format in the packed tensors of a quantized linear, by published name."""
        return {name: list(self._problems(linear)) for name, linear in self.quantized.items()}

    def _problems(self, linear: Linear) -> Iterator[str]:
        if isinstance(self.format, OwnFormat):
            yield from self.format.problems(linear.name, self.packed(linear), linear.shape)
            return
        infos = {local: self.reader.tensors[name] for local, name in linear.packed.items()}
        unfit = list(self.format.problems({local: (i.shape, i.dtype) for local, i in infos.items()}, linear.shape))
        yield from unfit
        for local in GROUP_INDICES & linear.packed.keys() if not unfit else ():
            index, count = self.reader.read([linear.packed[local]])[linear.packed[local]], self.groups(linear)
            low, high = (bound.item() for bound in index.aminmax())
            if low < 0 or high >= count:
                yield f"{local} names groups {low} to {high}, there are {count}"

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
        return self.format.dequantize(self.packed(linear), linear.shape, torch.float32)

    def groups(self, linear: Linear) -> int:
        """The scales that each output of a linear has; 1 where all outputs share one."""
        return self.format.groups(linear.shape)

    def cached(self) -> Iterable[Linear]:
        """The linears whose outputs, or what is made of them, an attention caches."""
        for place in self.model.decoder_blocks:
            for path in place.wiring.cached:
                yield self.linears[self.model.disk_module(f"{place.path}.{path}")]

    def fused(self) -> Iterable[list[Linear]]:
        """The linears that runtimes fuse into one weight."""
        for place in (*self.model.vision_blocks, *self.model.decoder_blocks):
            for group in self.model.groups(place) if place.wiring.fused else ():
                if len(group) > 1:
                    yield [self.linears[name] for name in group]


def _open_format(folder: Path, config: Mapping[str, Any]) -> tuple[Format | OwnFormat, Ignored]:
    try:
        return read_format(config), read_ignored(config)
    except CheckpointError as error:
        if not (folder / FILE_NAME).is_file():
            raise CheckpointError(f"{folder}: {error}") from error
        try:
            return OwnFormat(read_report(folder)), Ignored("", None, "exact")
        except BadInputError as why:
            raise CheckpointError(f"{folder}: {error}, and what wrote it cannot be asked: {why}") from why


def _quantization_config(reader: CheckpointReader) -> Mapping[str, Any]:
    config = reader.config.get("quantization_config")
    if not config:
        raise CheckpointError(f"{reader.folder / 'config.json'}: has no quantization_config: this is not quantized")
    if not isinstance(config, Mapping):
        raise CheckpointError(f"{reader.folder / 'config.json'}: quantization_config must be an object")
    return config
