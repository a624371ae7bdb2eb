"""Mend what a tool wrote beside the weights of a HunyuanOCR checkpoint, and prove that these are the tool's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyocr_core.checkpoint.reader import CONFIG_NAME, CheckpointReader
from hyocr_core.errors import RunError
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.spelling import memory_name, spellings

LEFT_OUT = {"compressed-tensors": "ignore", "awq": "modules_to_not_convert"}
"""quant_method -> the key that lists what is not quantized; for `gptq` runtimes see that in the shards."""


def finish(folder: Path, original: CheckpointReader, linears: Iterable[str]) -> None:
    """Leave in `folder` the tool's safetensors files, byte for byte, and beside them the original's files.

    config.json becomes the original's with the tool's quantization_config, mended: the tools write config, processor
    and tokenizer anew, as their version of Transformers has them. linears: of the model, by in-memory name.
    """
    reader = CheckpointReader(folder)
    written = reader.config["quantization_config"]
    quantized = {spellings(layer)[1] for layer in DequantizedCheckpoint(reader).shapes}
    left = [name for name in linears if name not in quantized]
    for path in original.side_files():
        shutil.copyfile(path, folder / path.name)
    config = {**original.config, "quantization_config": mended(written, left)}
    (folder / CONFIG_NAME).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def mended(written: Mapping[str, Any], left: Iterable[str]) -> dict[str, Any]:
    """A tool's quantization_config as runtimes read it. left: in-memory names of the linears that are not quantized.

    llm-compressor lists them by their names on disk, GPTQModel's AWQ not at all: either way runtimes, which look for
    names in memory, take the vision tower for quantized. And GPTQModel notes a folder of the machine that it ran on.
    """
    config = dict(written)
    key = LEFT_OUT.get(config["quant_method"])
    if key is not None:
        config[key] = list(left)
    if "meta" in config:
        config["meta"] = {name: value for name, value in config["meta"].items() if not name.endswith("_path")}
    return config


def check_kept(folder: Path, weights: Mapping[str, Tensor]) -> None:
    """Raise RunError unless hyocr's loader gives these parameters, by in-memory name, bit for bit.

    Those that a checkpoint leaves out, because they are tied, are compared where they are stored. The loader is told to
    unpack to fp32: to bf16 it would round scales in fp16, as GPTQModel's are, and hide what else differs.
    """
    reader = CheckpointReader(folder)
    reader.config["dtype"] = "float32"
    stored = DequantizedCheckpoint(reader)
    for disk_name in stored.tensors:
        name = memory_name(disk_name)
        if name not in weights:
            raise RunError(f"{folder}: {disk_name} is stored, but the tool holds no such parameter")
        (found,) = stored.read([disk_name]).values()
        if not torch.equal(found.to(weights[name].dtype), weights[name]):
            raise RunError(f"{folder}: {disk_name} is not what the tool held")
