"""A quantized checkpoint seen as a full-precision one: every quantized linear is unpacked when it is read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from hyocr_core.checkpoint.reader import CheckpointReader, TensorInfo
from hyocr_core.contract.config import MethodConfig
from hyocr_core.errors import CheckpointError
from hyocr_core.formats import Format, StoredFormats
from hyocr_core.formats.cache import split_name
from hyocr_core.models.known_formats import stored_formats
from hyocr_core.models.own_format import OwnFormat, own_format
from hyocr_core.plugin.method import Method

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class DequantizedCheckpoint:
    """The tensors of a quantized checkpoint, its packed linears presented as `NAME.weight`.

    They are unpacked by the formats that config.json names, whoever wrote them; by the method that wrote them only
    where nobody registered the format.
    Raises CheckpointError naming a layer whose tensors are not those of the format.
    """

    def __init__(self, reader: CheckpointReader) -> None:
        self._reader = reader
        self._linears = _open_linears(reader)
        self._packed = packed_tensors(reader.tensors, self._linears.shapes)
        self.folder = reader.folder
        self.config = reader.config
        self.tensors = self._presented()

    @property
    def formats(self) -> StoredFormats:
        """What stores the linears; raises CheckpointError when only the method that wrote them knows."""
        return stored_formats(self.config["quantization_config"])

    @property
    def shapes(self) -> Mapping[str, tuple[int, int]]:
        """The quantized linears: on-disk name -> (N, K)."""
        return self._linears.shapes

    def bits(self, layer: str) -> float:
        """Stored bits per weight of a quantized linear, with all that belongs to it."""
        outputs, inputs = self.shapes[layer]
        return 8 * sum(self._reader.tensors[name].nbytes for name in self._packed[layer]) / (outputs * inputs)

    def _presented(self) -> Mapping[str, TensorInfo]:
        dtype = stored_dtype(self._reader)
        packed = {name for names in self._packed.values() for name in names}
        tensors = {name: info for name, info in self._reader.tensors.items() if name not in packed}
        for layer, names in self._packed.items():
            if not names:
                raise CheckpointError(f"{self.folder}: {layer} is reported as quantized but has no tensors")
            shape = self._linears.shapes[layer]
            shard = self._reader.tensors[names[0]].shard
            tensors[f"{layer}.weight"] = TensorInfo(shape, dtype, dtype.itemsize * shape[0] * shape[1], shard)
        return tensors

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """The tensors of these names, packed linears unpacked; own copies."""
        result, plain = {}, []
        for name in names:
            layer = name.removesuffix(".weight")
            if layer in self._packed:
                result[name] = self._linears.unpack(layer, self._local(layer))
            else:
                plain.append(name)
        return result | self._reader.read(plain)

    def emulate(self, linears: Mapping[str, nn.Linear]) -> None:
        """Let these linears of a model, by on-disk name, see their inputs as the runtime's kernels do."""
        for name, linear in linears.items():
            if name in self._packed and self._linears.quantizes_inputs(name):
                device = linear.weight.device
                local = {key: tensor.to(device) for key, tensor in self._local(name).items()}
                _emulate(linear, partial(self._linears.quantize_inputs, tensors=local, layer=name))

    def _local(self, layer: str) -> dict[str, Tensor]:
        return local_names(self._reader.read(self._packed[layer]))


class _OfFormats:
    """Linears in formats that are installed. shapes: on-disk name -> (N, K)."""

    def __init__(self, reader: CheckpointReader, formats: StoredFormats) -> None:
        self._folder = reader.folder
        self._dtype = stored_dtype(reader)
        self._formats: dict[str, Format] = {}
        self.shapes: dict[str, tuple[int, int]] = {}
        for name, info in reader.tensors.items():
            layer, _, local = name.rpartition(".")
            written = formats.of(layer)
            if written is not None and written.holds_codes(local, info.dtype):
                self._formats[layer] = written
                self.shapes[layer] = written.linear_shape(info.shape)

    def unpack(self, layer: str, tensors: Mapping[str, Tensor]) -> Tensor:
        try:
            return self._formats[layer].dequantize(tensors, self.shapes[layer], self._dtype)
        except CheckpointError as error:
            raise CheckpointError(f"{self._folder}: {layer}: {error}") from error

    def quantizes_inputs(self, layer: str) -> bool:
        return self._formats[layer].quantizes_inputs

    def quantize_inputs(self, inputs: Tensor, tensors: Mapping[str, Tensor], layer: str) -> Tensor:
        return self._formats[layer].quantize_inputs(inputs, tensors)


def _open_linears(reader: CheckpointReader) -> _OfFormats | OwnFormat:
    try:
        formats = stored_formats(reader.config["quantization_config"])
    except CheckpointError as error:
        return own_format(reader.folder, stored_dtype(reader), error)
    return _OfFormats(reader, formats)


def stored_dtype(reader: CheckpointReader) -> torch.dtype:
    """The dtype that config.json names, to which runtimes dequantize; bfloat16 when it names none.

    Raises CheckpointError when it is none of a weight.
    """
    name = reader.config.get("dtype") or reader.config.get("torch_dtype") or "bfloat16"
    if not isinstance(name, str) or name not in DTYPES:
        raise CheckpointError(f"{reader.folder / 'config.json'}: dtype {name!r} is none of {', '.join(DTYPES)}")
    return DTYPES[name]


def packed_tensors(names: Iterable[str], layers: Iterable[str]) -> dict[str, list[str]]:
    """Layer -> the stored names of its packed tensors; a bias is never packed."""
    packed: dict[str, list[str]] = {layer: [] for layer in layers}
    for name in names:
        layer, local = split_name(name)
        if layer in packed and local != "bias":
            packed[layer].append(name)
    return packed


def emulate_inputs(
    linears: Mapping[str, nn.Linear],
    tensors: Mapping[str, Tensor],
    method: Method,
    configs: Mapping[str, MethodConfig],
) -> list[RemovableHandle]:
    """Let each linear see its inputs as `method`'s `quantize_inputs` leaves them; nothing for a method without it.

    linears: by on-disk name. tensors: their packed ones, under their stored names. configs: the options of each.
    """
    if not method.implements("quantize_inputs"):
        return []
    handles = []
    for layer, names in packed_tensors(tensors, linears).items():
        if names:
            device = linears[layer].weight.device
            local = local_names({name: tensors[name].to(device) for name in names})
            quantize = partial(method.quantize_inputs, tensors=local, config=configs[layer], layer=layer)
            handles.append(_emulate(linears[layer], quantize))
    return handles


def _emulate(linear: nn.Linear, quantize_inputs: Callable[[Tensor], Tensor]) -> RemovableHandle:
    return linear.register_forward_pre_hook(lambda _module, args: (quantize_inputs(args[0]), *args[1:]))


def local_names(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a layer by their local names instead of their stored ones."""
    return {split_name(name)[1]: value for name, value in tensors.items()}
