"""A method may store its weights as no runtime does: where it is installed, `hyocr verify` lets it unpack them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from hyocr_core.errors import CheckpointError
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.verification.verify import verify

if TYPE_CHECKING:
    from tests.conftest import PluginFolder
    from tests.verification.conftest import Tensors

# Names and values that mean something else in known formats: `weight` in bf16, negative scales.
SOURCE = """
from hyocr_core import MethodSpec, hookimpl
from hyocr_plugin_toy.plugin import ToyConfig, quantize_layer

@hookimpl
def method_spec():
    return MethodSpec("own", ToyConfig, "own", api_version=1, needs_calibration=False)

@hookimpl
def pack(layer):
    codes, scale = layer.tensors["codes"], layer.tensors["scale"]
    return {"weight": codes.bfloat16(), "weight_scale": -scale}

@hookimpl
def unpack(tensors):
    scale = -tensors["weight_scale"]
    return (tensors["weight"].float() * scale.float()).to(scale.dtype)

@hookimpl
def checkpoint_config(names):
    return {"quant_method": "own", "ignore": []}
"""
LAYER = "model.layers.1.mlp.up_proj"


@pytest.fixture
def written(plugins: PluginFolder, demo: Path, tmp_path: Path) -> Path:
    """The demo checkpoint by the method."""
    plugins.toy()
    plugins.module("own", SOURCE)
    quantize(RunConfig(model=str(demo), output=tmp_path / "out", method="own", device="cpu"))
    return tmp_path / "out"


def test_it_is_sound_and_what_was_not_checked_is_said(written: Path, demo: Path) -> None:
    result = verify(written, original=str(demo))
    assert result.faults == ()
    assert (result.quant_method, result.quantized, result.plain) == ("own", 28, 25)
    assert all(layer.sqnr_db is not None and layer.sqnr_db > 35 for layer in result.layers)
    assert result.notes == (
        "method own (hyocr-plugin-own 0.0.1) unpacked its own format; what runtimes ask of its tensors and of "
        "config.json is not known to hyocr and was not checked",
    )
    assert {runtime.loads for runtime in result.runtimes} == {"unsure"}


def test_no_runtime_is_asked_to_load_it(written: Path) -> None:
    result = verify(written, load="transformers")
    assert result.load is not None
    assert (result.load.outcome, result.faults) == ("cannot be tried here", ())
    assert result.load.detail == "no runtime is known to have the format of method own (hyocr-plugin-own 0.0.1)"


def triple(tensors: Tensors) -> None:
    tensors[f"{LAYER}.weight_scale"] *= 3


def lose(tensors: Tensors) -> None:
    del tensors[f"{LAYER}.weight_scale"]


def shrink(tensors: Tensors) -> None:
    tensors[f"{LAYER}.weight"] = tensors[f"{LAYER}.weight"][:8].clone()
    tensors[f"{LAYER}.weight_scale"] = tensors[f"{LAYER}.weight_scale"][:8].clone()


def poison(tensors: Tensors) -> None:
    tensors[f"{LAYER}.weight_scale"][3] = float("nan")


@pytest.mark.parametrize(
    ("edit", "problem"),
    [
        (triple, "is not the original's weight: -6.0 dB, at least 3 is due"),
        (lose, "hook unpack, model.layers.1.mlp.up_proj: KeyError: 'weight_scale'"),
        (shrink, "returned a weight of shape [8, 256], the layer has [512, 256]"),
        (poison, "hook unpack, model.layers.1.mlp.up_proj: returned NaN or infinite values"),
    ],
)
def test_damage_is_found_by_unpacking(edit: Callable[[Tensors], None], problem: str, written: Path, demo: Path) -> None:
    tensors = load_file(written / "model.safetensors")
    edit(tensors)
    save_file(tensors, written / "model.safetensors", metadata={"format": "pt"})
    faults = {fault.place: fault.problem for fault in verify(written, original=str(demo)).faults}
    assert faults.keys() == {"model.safetensors", LAYER}
    assert problem in faults[LAYER]


def test_a_plain_weight_in_the_place_of_a_reported_layer_is_no_codes(written: Path, demo: Path) -> None:
    tensors = load_file(written / "model.safetensors")
    del tensors[f"{LAYER}.weight_scale"]
    tensors[f"{LAYER}.weight"] = load_file(demo / "model.safetensors")[f"{LAYER}.weight"]
    save_file(tensors, written / "model.safetensors", metadata={"format": "pt"})
    places = {fault.place for fault in verify(written).faults}
    assert places == {"model.safetensors", LAYER}


def test_what_the_method_writes_into_config_json_is_compared(written: Path) -> None:
    path = written / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"]["ignore"] = ["lm_head"]
    path.write_text(json.dumps(config))
    changed, fault = verify(written).faults
    assert (changed.place, changed.problem.startswith("has other bytes")) == ("config.json", True)
    assert (fault.place, "ignore is ['lm_head'], hyocr wrote []" in fault.problem) == ("config.json", True)


def test_without_the_method_or_the_report_it_cannot_be_read(written: Path, plugins: PluginFolder) -> None:
    for info in plugins.folder.glob("hyocr_plugin_own-*"):
        (info / "entry_points.txt").unlink()
    with pytest.raises(CheckpointError, match=r"quant_method: 'own' is not read by hyocr.* no method 'own'") as caught:
        verify(written)
    assert "what wrote it cannot be asked: " in str(caught.value)
    (written / "hyocr_report.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"quant_method: 'own' is not read by hyocr, only awq or compressed-tensors or fp8"
    ):
        verify(written)


def test_the_largest_weights_are_bounded_here_too(written: Path) -> None:
    tensors = load_file(written / "model.safetensors")
    tensors[f"{LAYER}.weight_scale"] = torch.full_like(tensors[f"{LAYER}.weight_scale"], 1e6)
    save_file(tensors, written / "model.safetensors", metadata={"format": "pt"})
    assert "its largest weight is 1.27e+08 once dequantized" in verify(written).faults[1].problem
