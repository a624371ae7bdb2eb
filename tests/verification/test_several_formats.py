"""Layers of one checkpoint in several formats: each is read, checked and held against its original by its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.formats import CompressedFp8Format, Format, GptqFormat, IntQuantizedFormat, PackQuantizedFormat
from hyocr_core.kit.grid import fit_grid, round_to_nearest
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.known_formats import stored_formats
from hyocr_core.models.load import load_whole, open_weights
from hyocr_core.models.rounded import RoundedCheckpoint
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source
from hyocr_core.verification.verify import verify

if TYPE_CHECKING:
    from tests.verification.conftest import Copy, Tensors, Write

DOWN, UP = "model.layers.2.mlp.down_proj", "model.layers.2.mlp.up_proj"
FOUR, EIGHT = PackQuantizedFormat(4, 128, sym=True), PackQuantizedFormat(8, 64, sym=True)
INT8 = IntQuantizedFormat("channel", "dynamic")
MIXES: dict[str, tuple[Format, tuple[tuple[str, Format], ...]]] = {
    "bits-and-groups": (FOUR, ((".down_proj", EIGHT),)),
    "int8-and-4-bits": (INT8, ((".down_proj", PackQuantizedFormat(4, 32, sym=True)),)),
    "three": (FOUR, (("layers.0.", CompressedFp8Format("channel", "dynamic")), (".mlp.", INT8))),
}


@pytest.mark.parametrize(("written", "others"), MIXES.values(), ids=MIXES)
def test_each_layer_is_held_to_the_bound_of_its_format(
    written: Format, others: tuple[tuple[str, Format], ...], write: Write, demo: Path
) -> None:
    result = verify(write(written, others=others), original=str(demo))
    assert result.faults == ()
    least = {layer.name: layer.least_db for layer in result.layers}
    expected = {name: next((one for part, one in others if part in name), written) for name in least}
    assert least == {name: one.bound.decibels for name, one in expected.items()}


@pytest.mark.parametrize(("written", "others"), [*MIXES.values(), (INT8, ())], ids=[*MIXES, "int8"])
def test_transformers_loads_what_hyocr_dequantizes(
    written: Format, others: tuple[tuple[str, Format], ...], write: Write, processor: Any, heldout: str
) -> None:
    pytest.importorskip("compressed_tensors")
    weights = open_weights(write(written, others=others))
    ours, theirs = (load_whole(weights, torch.device("cpu"), native=native).skeleton for native in (False, True))
    inputs = build_sample(open_source(heldout)[0], processor, with_answer=False).inputs
    with torch.inference_mode():
        found, expected = (model(**inputs).logits.float() for model in (ours, theirs))
    # compressed-tensors computes the scales of tokens in bf16, and from 127.5 instead of 127.
    assert ((found - expected).norm() / expected.norm()).item() < 0.03
    own = dict(ours.named_parameters())
    # Its first forward decompressed what Transformers loaded.
    for name, parameter in theirs.named_parameters():
        if name in own:
            assert torch.equal(parameter, own[name]), name


def test_weights_are_rounded_each_in_its_format(write: Write, demo: Path) -> None:
    folder = write(*MIXES["three"][:1], others=MIXES["three"][1])
    view, plain = RoundedCheckpoint(open_weights(demo), open_weights(folder)), load_file(demo / "model.safetensors")
    stored = stored_formats(json.loads((folder / "config.json").read_text())["quantization_config"])
    for name in ("model.layers.0.mlp.up_proj", UP, "model.layers.2.self_attn.q_proj"):
        expected = stored.of(name)
        assert expected is not None
        weight = f"{name}.weight"
        assert torch.equal(view.read([weight])[weight], expected.nearest(plain[weight]))
    assert len({stored.of(name) for name in view.shapes}) == 3


def test_inputs_are_quantized_where_the_format_does_it(write: Write) -> None:
    checkpoint = DequantizedCheckpoint(CheckpointReader(write(INT8, others=MIXES["int8-and-4-bits"][1])))
    linears = {UP: torch.nn.Linear(256, 512, bias=False), DOWN: torch.nn.Linear(512, 256, bias=False)}
    inputs = {name: torch.randn(1, linear.in_features) for name, linear in linears.items()}
    plain = {name: linear(inputs[name]) for name, linear in linears.items()}
    checkpoint.emulate(linears)
    assert not torch.equal(linears[UP](inputs[UP]), plain[UP])
    assert torch.equal(linears[UP](inputs[UP]), linears[UP].forward(INT8.quantize_inputs(inputs[UP], {})))
    assert torch.equal(linears[DOWN](inputs[DOWN]), plain[DOWN])


def swap_bits(config: dict[str, Any]) -> None:
    first, second = config["config_groups"].values()
    first["weights"], second["weights"] = second["weights"], first["weights"]


def by_names_on_disk(config: dict[str, Any]) -> None:
    for group in config["config_groups"].values():
        group["targets"] = [name.replace("model.language_model.layers", "model.layers") for name in group["targets"]]


def drop_down_proj(config: dict[str, Any]) -> None:
    del config["config_groups"]["group_1"]


def only_up_in_int8(config: dict[str, Any]) -> None:
    first, second = config["config_groups"].values()
    moved = "model.language_model.layers.2.mlp.up_proj"
    first["targets"].remove(moved)
    second["targets"].append(moved)


@pytest.mark.parametrize(
    ("edit", "place", "problem"),
    [
        (swap_bits, DOWN, "weight_scale has shape [256, 8], not [256, 4]"),
        (by_names_on_disk, DOWN, "config.json does not name it as model.language_model.layers.2.mlp.down_proj"),
        (drop_down_proj, DOWN, "is quantized, but config.json says of no format that it stores this layer"),
        (only_up_in_int8, "model.layers.2.mlp.gate_proj", "is stored otherwise than what runtimes fuse with it: gate_"),
    ],
)
def test_groups_that_lie_are_found(
    edit: Callable[[dict[str, Any]], None], place: str, problem: str, write: Write, copy: Copy
) -> None:
    folder = copy(write(FOUR, others=MIXES["bits-and-groups"][1]), None, edit)
    assert any(fault.place == place and problem in fault.problem for fault in verify(folder).faults)


def test_rules_of_gptqmodel_are_read(write: Write, copy: Copy, demo: Path) -> None:
    """`dynamic`: down_proj with 8 bits, and block 3 left as it is."""
    plain = load_file(demo / "model.safetensors")

    def change(tensors: Tensors) -> None:
        for name in list(tensors):
            if name.startswith("model.layers.3.") and name.endswith((".qweight", ".qzeros", ".scales", ".g_idx")):
                del tensors[name]
        tensors |= {name: plain[name] for name in plain if name.startswith("model.layers.3.")}
        for index in range(3):
            layer = f"model.layers.{index}.mlp.down_proj"
            tensors.update({f"{layer}.{key}": value for key, value in eight_bits(plain[f"{layer}.weight"]).items()})

    rules = {"-:model\\.language_model\\.layers\\.3\\.": {}, "+:.*\\.down_proj": {"bits": 8, "group_size": 64}}
    folder = copy(write(GptqFormat(4, 128, sym=True)), change, lambda config: config.update(dynamic=rules))
    result = verify(folder, original=str(demo))
    assert result.faults == ()
    assert result.quantized == 21
    assert {layer.name: layer.least_db for layer in result.layers}[DOWN] == 26
    weights = DequantizedCheckpoint(CheckpointReader(folder))
    assert weights.bits(DOWN) > 8 > weights.bits(UP)


def eight_bits(weight: Tensor) -> dict[str, Tensor]:
    columns = weight.T.contiguous().float()
    grid = fit_grid(columns, weight.dtype, bits=8, group_size=64, sym=True, mse=False)
    return GptqFormat(8, 64, sym=True).pack(round_to_nearest(columns, grid), grid)
