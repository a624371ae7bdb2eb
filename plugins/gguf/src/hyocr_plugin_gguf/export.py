"""The files for llama.cpp, made of a finished checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from gguf import GGUFWriter

from hyocr_plugin_gguf.metadata import ARCHITECTURE, VISION_ARCHITECTURE, add_text, add_vision
from hyocr_plugin_gguf.opened import Opened
from hyocr_plugin_gguf.tensors import GgufTensor, gguf_tensors
from hyocr_plugin_gguf.tokenizer import add_tokenizer

if TYPE_CHECKING:
    from hyocr_plugin_gguf.config import GgufConfig


def text_name(config: GgufConfig) -> str:
    """The file of the decoder."""
    return f"model-{config.type}.gguf"


def vision_name(config: GgufConfig) -> str:
    """The file of the vision part."""
    return f"mmproj-{config.mmproj}.gguf"


def export_files(checkpoint: Path, folder: Path, config: GgufConfig) -> None:
    """Write both GGUF files of `checkpoint` into `folder`."""
    opened = Opened(checkpoint)
    writer = GGUFWriter(folder / text_name(config), ARCHITECTURE)
    add_text(writer, opened, config.type)
    add_tokenizer(writer, opened)
    write(writer, gguf_tensors(opened, config, vision=False))
    writer = GGUFWriter(folder / vision_name(config), VISION_ARCHITECTURE)
    add_vision(writer, opened, config.mmproj)
    write(writer, gguf_tensors(opened, config, vision=True))


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
