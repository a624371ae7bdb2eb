"""The files for llama.cpp, made of a finished checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGUFWriter

from hyocr_plugin_gguf import imatrix, ollama
from hyocr_plugin_gguf.metadata import ARCHITECTURE, VISION_ARCHITECTURE, add_text, add_vision
from hyocr_plugin_gguf.opened import Opened
from hyocr_plugin_gguf.tensors import GgufTensor, gguf_tensors
from hyocr_plugin_gguf.tokenizer import add_tokenizer

if TYPE_CHECKING:
    from hyocr_plugin_gguf.config import GgufConfig


def export_files(checkpoint: Path, folder: Path, config: GgufConfig) -> None:
    """Write both GGUF files of `checkpoint` into `folder`, a Modelfile, and the importance matrix if there is one."""
    opened = Opened(checkpoint)
    text, vision = f"model-{config.type}.gguf", f"mmproj-{config.mmproj}.gguf"
    writer = text_writer(opened, config.type, folder / text)
    write(writer, gguf_tensors(opened, config, vision=False))
    writer = vision_writer(opened, config.mmproj, folder / vision)
    write(writer, gguf_tensors(opened, config, vision=True))
    (folder / ollama.FILE_NAME).write_text(ollama.modelfile(opened, (text, vision)), encoding="utf-8")
    means = imatrix.importance(opened)
    if means:
        imatrix.write_imatrix(folder / imatrix.FILE_NAME, means)


def text_writer(opened: Opened, kind: str, path: Path | None = None) -> GGUFWriter:
    """A writer that was told all of the decoder but its tensors."""
    writer = GGUFWriter(path, ARCHITECTURE)
    add_text(writer, opened, kind)
    add_tokenizer(writer, opened)
    return writer


def vision_writer(opened: Opened, kind: str, path: Path | None = None) -> GGUFWriter:
    """A writer that was told all of the vision part but its tensors."""
    writer = GGUFWriter(path, VISION_ARCHITECTURE)
    add_vision(writer, opened, kind)
    return writer


def write(writer: GGUFWriter, tensors: Iterable[GgufTensor]) -> None:
    """Write all that the writer was told, and the tensors one by one, of which one is in memory at a time."""
    tensors = list(tensors)
    for tensor in tensors:
        writer.add_tensor_info(tensor.name, tensor.shape, np.dtype(np.float32), tensor.nbytes, tensor.type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    for tensor in tensors:
        writer.write_tensor_data(np.ascontiguousarray(tensor.read()))
    writer.close()
