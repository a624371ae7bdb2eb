"""Quantized copies of the demo checkpoint, written with hyocr's formats but by no method: as another tool would."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hyocr_core import QuantizedNames
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.formats import (
    AwqFormat,
    CompressedFp8Format,
    Format,
    Fp8Format,
    Fp8Weight,
    GptqFormat,
    PackQuantizedFormat,
)
from hyocr_core.kit.grid import fit_grid, round_to_nearest
from hyocr_core.models.hunyuan_vl import HunYuanVL

Tensors = dict[str, Tensor]
Write = Callable[..., Path]
Copy = Callable[..., Path]


@pytest.fixture(scope="session")
def write(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Write the demo checkpoint in a format, its weights rounded to nearest; `change` edits them before that."""
    made: dict[tuple[Format, str], Path] = {}
    model = HunYuanVL(CheckpointReader(demo), torch.device("cpu"))
    groups = [group for place in model.decoder_blocks for group in model.groups(place)]
    quantized = [name for group in groups for name in group]
    rest = [name for name in model.memory_names if name not in quantized]
    names = QuantizedNames(
        tuple(model.memory_names[name] for name in quantized), tuple(model.memory_names[name] for name in rest)
    )

    def run(written: Format, change: Callable[[Tensors], None] | None = None) -> Path:
        key = (written, change.__name__ if change else "")
        if key not in made:
            folder = tmp_path_factory.mktemp("written") / "checkpoint"
            shutil.copytree(demo, folder)
            tensors = load_file(folder / "model.safetensors")
            if change is not None:
                change(tensors)
            for group in groups:
                tensors |= dict(_pack_group(written, {name: tensors.pop(f"{name}.weight") for name in group}))
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            config["quantization_config"] = written.quantization_config(names)
            (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
            made[key] = folder
        return made[key]

    return run


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    """Copy a checkpoint after an edit of its tensors, of its quantization_config, or of both."""

    def run(
        folder: Path,
        tensors: Callable[[Tensors], None] | None = None,
        config: Callable[[dict[str, Any]], None] | None = None,
    ) -> Path:
        target = tmp_path / "copy"
        shutil.copytree(folder, target)
        if tensors is not None:
            loaded = load_file(target / "model.safetensors")
            tensors(loaded)
            save_file(loaded, target / "model.safetensors", metadata={"format": "pt"})
        if config is not None:
            whole = json.loads((target / "config.json").read_text(encoding="utf-8"))
            config(whole["quantization_config"])
            (target / "config.json").write_text(json.dumps(whole), encoding="utf-8")
        return target

    return run


def _pack_group(written: Format, weights: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
    """Tensors of linears that share an input, by on-disk name."""
    largest = max(weight.abs().max() for weight in weights.values())
    for name, weight in weights.items():
        for local, tensor in _pack(written, weight, largest).items():
            yield f"{name}.{local}", tensor


def _pack(written: Format, weight: Tensor, largest: Tensor) -> Mapping[str, Tensor]:
    match written:
        case GptqFormat() | PackQuantizedFormat():
            bits, sym = written.bits, written.sym
        case AwqFormat():
            bits, sym = 4, not written.zero_point
        case Fp8Format():
            return _fp8(weight, largest, written.activations)
        case CompressedFp8Format():
            rows = weight.abs().amax(1, keepdim=True)
            return _fp8(weight, largest if written.weights == "tensor" else rows, written.activations)
        case _:
            raise AssertionError(written)
    columns = weight.T.float()
    grid = fit_grid(columns, weight.dtype, bits=bits, group_size=written.group_size, sym=sym, mse=True)
    return written.pack(round_to_nearest(columns, grid), grid)


def _fp8(weight: Tensor, largest: Tensor, activations: str) -> Mapping[str, Tensor]:
    scale = (largest.float() / 448).bfloat16()
    codes = (weight.float() / scale.float()).clamp(-448, 448).to(torch.float8_e4m3fn)
    return Fp8Weight(codes, scale, torch.tensor(0.02).bfloat16() if activations == "static" else None).tensors()
