"""The GGUF files of a checkpoint held against the checkpoint: what they say of it, and every tensor's bytes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFReader, GGUFWriter, ReaderTensor
from gguf.quants import dequantize

from hyocr_core import CheckpointError
from hyocr_plugin_gguf.export import text_writer, vision_writer
from hyocr_plugin_gguf.metadata import FILE_TYPES
from hyocr_plugin_gguf.opened import Opened
from hyocr_plugin_gguf.stored import GgufFormat
from hyocr_plugin_gguf.tensors import CODES, POSITIONS, source_names

LEAST_DECIBELS = 26.0
"""Of what is rounded beside the linears: the embedding, and the matrices of the vision part."""
UNCOMPARED = {"general.file_type"}


def file_problems(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield (file, what is wrong) of the GGUF files beside a checkpoint in the format `gguf`."""
    opened = Opened(folder)
    for part, vision in (("model", False), ("mmproj", True)):
        found = sorted(folder.glob(f"{part}-*.gguf"))
        if len(found) != 1:
            yield f"{part}-*.gguf", f"there are {len(found)} such files, and llama.cpp needs one"
        for path in found:
            yield from ((path.name, problem) for problem in _problems(opened, path, vision=vision))


def _problems(opened: Opened, path: Path, *, vision: bool) -> Iterator[str]:
    try:
        reader = GGUFReader(path)
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError, MemoryError) as error:
        yield f"is no whole GGUF file: {str(error).splitlines()[0] if str(error) else type(error).__name__}"
        return
    try:
        writer = vision_writer(opened, "f16") if vision else text_writer(opened, "f16")
    except CheckpointError as error:
        yield f"cannot be held against the checkpoint: {error}"
        return
    yield from _field_problems(reader, writer)
    yield from _tensor_problems(opened, reader, vision=vision)


def _field_problems(reader: GGUFReader, writer: GGUFWriter) -> Iterator[str]:
    expected = {key: value.value for key, value in writer.kv_data[0].items() if key not in UNCOMPARED}
    kinds = {int(kind) for kind in FILE_TYPES.values()}
    for key, value in expected.items():
        field = reader.get_field(key)
        found = None if field is None else field.contents()
        if not _same(found, value):
            yield f"{key} is {_short(found)}, and the checkpoint's is {_short(value)}"
    field = reader.get_field("general.file_type")
    if field is None or field.contents() not in kinds:
        yield "general.file_type is none that this method writes"


def _same(found: Any, value: Any) -> bool:
    if isinstance(value, float):
        return isinstance(found, float) and bool(np.float32(value) == np.float32(found))
    if isinstance(value, list | tuple):
        return isinstance(found, list) and len(found) == len(value) and all(map(_same, found, value))
    return bool(found == value)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _tensor_problems(opened: Opened, reader: GGUFReader, *, vision: bool) -> Iterator[str]:
    found = {tensor.name: tensor for tensor in reader.tensors}
    sources: Mapping[str, str] = source_names(opened, vision=vision)
    for name in found.keys() - sources.keys():
        yield f"{name} is no tensor of this model"
    for name, source in sources.items():
        if name not in found:
            yield f"{name} is missing"
        elif problem := _tensor_problem(opened, found[name], source):
            yield f"{name} {problem}"


def _tensor_problem(opened: Opened, tensor: ReaderTensor, source: str) -> str | None:
    stored = opened.read(source)
    if source.endswith(f".{CODES}"):
        return _block_problem(opened, tensor, source, stored.numpy())
    stored = stored[1:] if source == POSITIONS else stored
    shape = tuple(int(size) for size in reversed(tensor.shape))
    if shape != tuple(stored.shape):
        return f"has shape {list(shape)}, and the checkpoint's has {list(stored.shape)}"
    values, exact = dequantize(tensor.data, tensor.tensor_type).reshape(shape), stored.float().numpy()
    error, size = float(np.square(values - exact).sum()), float(np.square(exact).sum())
    if not np.isfinite(error) or error * 10 ** (LEAST_DECIBELS / 10) > size:
        return "holds other values than the checkpoint"
    return None


def _block_problem(opened: Opened, tensor: ReaderTensor, source: str, blocks: Any) -> str | None:
    written: GgufFormat = opened.format_of(source)
    if tensor.tensor_type != written.ggml:
        return f"is {tensor.tensor_type.name}, and the checkpoint has {written.ggml.name}"
    if tensor.data.nbytes != blocks.nbytes or tensor.data.tobytes() != blocks.tobytes():
        return "holds other blocks than the checkpoint"
    return None
