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
from hyocr_core.formats import Format, IntegerFormat, ScaledFormat, ScaledWeight, checkpoint_config
from hyocr_core.kit.grid import fit_grid, round_to_nearest
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import load_model
from hyocr_core.models.spelling import published_name
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source

Tensors = dict[str, Tensor]
Write = Callable[..., Path]
Copy = Callable[..., Path]


@pytest.fixture(scope="session")
def reached(demo: Path) -> dict[str, float]:
    """The largest input of every linear of the demo on a line of text, by on-disk name."""
    model = load_model(demo, torch.device("cpu"))
    found: dict[str, float] = {}

    def watch(name: str) -> Callable[..., None]:
        return lambda _module, args: found.update({name: args[0].abs().max().item()})

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_pre_hook(watch(published_name(name)))
    page = build_sample(next(iter(open_source("synthetic:1"))), load_processor(demo), with_answer=True)
    with torch.inference_mode():
        model(**page.inputs)
    return found


@pytest.fixture(scope="session")
def write(demo: Path, reached: dict[str, float], tmp_path_factory: pytest.TempPathFactory) -> Write:
    """Write the demo checkpoint in a format, its weights rounded to nearest; `change` edits them before that.

    others: what is stored in another format: a part of its name, and the format.
    """
    made: dict[tuple[object, str], Path] = {}
    model = HunYuanVL(CheckpointReader(demo), torch.device("cpu"))
    groups = [group for place in model.decoder_blocks for group in model.groups(place)]
    quantized = [name for group in groups for name in group]
    rest = [name for name in model.memory_names if name not in quantized]
    names = QuantizedNames(
        tuple(model.memory_names[name] for name in quantized), tuple(model.memory_names[name] for name in rest)
    )

    def run(
        written: Format, change: Callable[[Tensors], None] | None = None, others: tuple[tuple[str, Format], ...] = ()
    ) -> Path:
        key = ((written, others), change.__name__ if change else "")
        stored = {name: next((one for part, one in others if part in name), written) for name in quantized}
        if key not in made:
            folder = tmp_path_factory.mktemp("written") / "checkpoint"
            shutil.copytree(demo, folder)
            tensors = load_file(folder / "model.safetensors")
            if change is not None:
                change(tensors)
            for group in groups:
                weights = {name: tensors.pop(f"{name}.weight") for name in group}
                tensors |= dict(_pack_group(stored[group[0]], weights, reached[group[0]]))
            save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            layers = {model.memory_names[name]: one for name, one in stored.items()}
            config["quantization_config"] = checkpoint_config(layers, names)
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


def _pack_group(written: Format, weights: Mapping[str, Tensor], reached: float) -> Iterator[tuple[str, Tensor]]:
    """Tensors of linears that share an input, by on-disk name; reached: the largest input."""
    largest = max(weight.abs().max() for weight in weights.values())
    for name, weight in weights.items():
        for local, tensor in _pack(written, weight, largest, reached).items():
            yield f"{name}.{local}", tensor


def _pack(written: Format, weight: Tensor, largest: Tensor, reached: float) -> Mapping[str, Tensor]:
    if isinstance(written, IntegerFormat):
        columns = weight.T.float()
        grid = fit_grid(
            columns, weight.dtype, bits=written.bits, group_size=written.group_size, sym=written.sym, mse=True
        )
        return written.pack(round_to_nearest(columns, grid), grid)
    assert isinstance(written, ScaledFormat)
    rows = weight.abs().amax(1, keepdim=True)
    scale = ((rows if written.per_channel else largest).float() / written.largest_code).bfloat16()
    codes = written.encode(weight.float() / scale.float())
    static = torch.tensor(reached / written.largest_code).bfloat16() if written.activations == "static" else None
    return ScaledWeight(codes, scale, static).tensors()
