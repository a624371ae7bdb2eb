"""Mend what a tool wrote beside the weights of a HunyuanOCR checkpoint, and prove that the weights are the tool's own."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.errors import RunError
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import open_weights, unpacked
from hyocr_core.models.spelling import memory_name

CONFIG = "config.json"
LEFT_OUT = {"compressed-tensors": "ignore", "awq": "modules_to_not_convert"}
"""quant_method -> the key that lists what is not quantized; for `gptq` runtimes see that in the shards."""
PASSED_OVER = (".safetensors", ".index.json")


def finish(folder: Path, original: HunYuanVL) -> None:
    """Leave in `folder` the tool's safetensors files, byte for byte, and beside them the original's files.

    config.json is the original's with the tool's quantization_config, mended: the tools drop keys of the former, write
    another version's processor and tokenizer, and name linears so that no runtime finds them.
    """
    written = json.loads((folder / CONFIG).read_text(encoding="utf-8"))["quantization_config"]
    for path in original.reader.folder.iterdir():
        if path.is_file() and not path.name.endswith(PASSED_OVER):
            shutil.copyfile(path, folder / path.name)
    config = dict(original.reader.config) | {"quantization_config": written}
    # As the tool wrote it, it is enough to see which linears are quantized.
    _write(folder, config)
    _write(folder, config | {"quantization_config": mended(written, _left(folder, original))})


def mended(written: Mapping[str, Any], left: list[str]) -> dict[str, Any]:
    """A tool's quantization_config as runtimes read it. left: in-memory names of the linears that are not quantized.

    llm-compressor lists them by their names on disk, GPTQModel's AWQ not at all: either way runtimes, which look for
    names in memory, take the vision tower for quantized. And GPTQModel notes a folder of the machine that it ran on.
    """
    config = dict(written)
    key = LEFT_OUT.get(config["quant_method"])
    if key is not None:
        config[key] = left
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
    stored = unpacked(reader)
    for disk_name in stored.tensors:
        name = memory_name(disk_name)
        if name not in weights:
            raise RunError(f"{folder}: {disk_name} is stored, but the tool holds no such parameter")
        (found,) = stored.read([disk_name]).values()
        held = weights[name]
        if not torch.equal(found.to(held.dtype), held):
            raise RunError(f"{folder}: {disk_name} is not what the tool held")


def _left(folder: Path, original: HunYuanVL) -> list[str]:
    stored = open_weights(folder)
    quantized = set(map(memory_name, _weights(stored.shapes))) if isinstance(stored, DequantizedCheckpoint) else set()
    return [name for name in original.memory_names.values() if f"{name}.weight" not in quantized]


def _weights(layers: Mapping[str, object]) -> list[str]:
    return [f"{layer}.weight" for layer in layers]


def _write(folder: Path, config: Mapping[str, Any]) -> None:
    (folder / CONFIG).write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
