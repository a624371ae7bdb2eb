"""A sound checkpoint has no fault, in whatever format and whoever wrote it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hyocr_core.formats import (
    AwqFormat,
    CompressedFp8Format,
    Format,
    Fp8Format,
    GptqFormat,
    IntQuantizedFormat,
    PackQuantizedFormat,
)
from hyocr_core.kit.grid import fit_grid, round_to_nearest
from hyocr_core.models.spelling import memory_name
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.verification.verify import verify

if TYPE_CHECKING:
    from tests.verification.conftest import Copy, Tensors, Write

pytestmark = pytest.mark.needs_methods

FORMATS: dict[str, Format] = {
    "gptq": GptqFormat(4, 128, sym=True),
    "gptq-8-bits-per-channel": GptqFormat(8, -1, sym=True),
    "gptq_v2": GptqFormat(4, 32, sym=True, version=2),
    "awq": AwqFormat(128, zero_point=True),
    "awq-without-zero-points": AwqFormat(32, zero_point=False),
    "packed": PackQuantizedFormat(4, 128, sym=True),
    "packed-zero-points": PackQuantizedFormat(4, 64, sym=False),
    "packed-8-bits-per-channel": PackQuantizedFormat(8, -1, sym=True),
    "fp8-static": Fp8Format("static"),
    "fp8-dynamic": Fp8Format("dynamic"),
    "float-quantized-tensor": CompressedFp8Format("tensor", "static"),
    "float-quantized-channel": CompressedFp8Format("channel", "dynamic"),
    "int-quantized-dynamic": IntQuantizedFormat("channel", "dynamic"),
    "int-quantized-static": IntQuantizedFormat("tensor", "static"),
}


def faults(*arguments: Any, **options: Any) -> list[str]:
    return [f"{fault.place}: {fault.problem}" for fault in verify(*arguments, **options).faults]


@pytest.mark.parametrize("written", FORMATS.values(), ids=FORMATS)
def test_every_format_is_sound_beside_its_original(written: Format, write: Write, demo: Path) -> None:
    result = verify(write(written), original=str(demo))
    assert result.faults == ()
    assert (result.quantized, result.plain) == (28, 25)
    assert len(result.layers) == 28
    assert all(layer.sqnr_db is not None and layer.sqnr_db > layer.least_db for layer in result.layers)
    assert result.notes == (
        "there is no hyocr_report.json: another tool wrote this, so there is no record to compare with",
    )


def test_what_hyocr_wrote_is_sound(demo: Path, tmp_path: Path) -> None:
    quantize(RunConfig(model=str(demo), output=tmp_path / "out", method="rtn"))
    result = verify(tmp_path / "out", original=str(demo))
    assert (result.faults, result.notes) == ((), ())


def test_names_in_memory_are_known_too(write: Write, demo: Path, copy: Copy) -> None:
    """As GPTQModel writes them."""

    def rename(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[memory_name(name)] = tensors.pop(name)

    folder = copy(write(FORMATS["gptq"]), rename)
    assert "model.language_model.layers.0.self_attn.q_proj.qweight" in load_file(folder / "model.safetensors")
    assert faults(folder, original=str(demo)) == []


def test_announced_permuted_groups_are_read(write: Write, demo: Path, copy: Copy) -> None:
    """With desc_act, channel k belongs to group g_idx[k], wherever it stands."""
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    layer = "model.layers.0.self_attn.q_proj"

    def permute(tensors: Tensors) -> None:
        columns = load_file(demo / "model.safetensors")[f"{layer}.weight"].T.float()[order]
        grid = fit_grid(columns, torch.bfloat16, bits=4, group_size=128, sym=True, mse=True)
        codes = torch.empty(256, 256, dtype=torch.uint8)
        codes[order] = round_to_nearest(columns, grid)
        packed = GptqFormat(4, 128, sym=True).pack(codes, grid)
        packed["g_idx"][order] = torch.arange(256, dtype=torch.int32) // 128
        tensors.update({f"{layer}.{local}": tensor for local, tensor in packed.items()})

    folder = copy(write(FORMATS["gptq"]), permute, lambda config: config.update(desc_act=True))
    result = verify(folder, original=str(demo))
    assert result.faults == ()
    assert {runtime.name: runtime.loads for runtime in result.runtimes}["vLLM CUDA"] == "no"


class Smoothing:
    """Fold scales per channel as AWQ does into every block; heads of 64, two share a value head."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = tensors
        self.generator = torch.Generator().manual_seed(1)

    def scales(self, count: int) -> torch.Tensor:
        return torch.exp(torch.randn(count, generator=self.generator) / 4)

    def multiply(self, name: str, factor: torch.Tensor) -> None:
        self.tensors[name] = (self.tensors[name].float() * factor).bfloat16()

    def norms(self, block: str) -> None:
        for norm, targets in (
            ("input_layernorm", ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")),
            ("post_attention_layernorm", ("mlp.gate_proj", "mlp.up_proj")),
        ):
            before = self.tensors[f"{block}.{norm}.weight"].float()
            self.multiply(f"{block}.{norm}.weight", 1 / self.scales(256))
            for target in targets:
                self.multiply(f"{block}.{target}.weight", before / self.tensors[f"{block}.{norm}.weight"].float())

    def linears(self, block: str) -> None:
        values = self.scales(128)
        self.multiply(f"{block}.self_attn.v_proj.weight", 1 / values[:, None])
        self.multiply(f"{block}.self_attn.o_proj.weight", values.view(2, 1, 64).expand(2, 2, 64).reshape(-1))
        hidden = self.scales(512)
        self.multiply(f"{block}.mlp.up_proj.weight", 1 / hidden[:, None])
        self.multiply(f"{block}.mlp.down_proj.weight", hidden)


BLOCKS = [f"model.layers.{index}" for index in range(4)]


def smooth(tensors: Tensors) -> None:
    """In all four places of every block."""
    smoothing = Smoothing(tensors)
    for block in BLOCKS:
        smoothing.norms(block)
        smoothing.linears(block)


def smooth_linears(tensors: Tensors) -> None:
    """Where the scales that were chosen for what norms feed are all 1."""
    smoothing = Smoothing(tensors)
    for block in BLOCKS:
        smoothing.linears(block)


SMOOTHED = {"awq": FORMATS["awq"], "packed-8-bits": PackQuantizedFormat(8, 128, sym=True)}


@pytest.mark.parametrize("change", [smooth, smooth_linears])
@pytest.mark.parametrize("written", SMOOTHED.values(), ids=SMOOTHED)
def test_folded_scales_are_found_again(
    written: Format, change: Callable[[Tensors], None], write: Write, demo: Path
) -> None:
    result = verify(write(written, change), original=str(demo))
    assert result.faults == ()
    plain = verify(write(written), original=str(demo))
    for smoothed, unsmoothed in zip(result.layers, plain.layers, strict=True):
        assert smoothed.sqnr_db is not None
        assert unsmoothed.sqnr_db is not None
        assert smoothed.sqnr_db > unsmoothed.sqnr_db - 3


@pytest.mark.parametrize("rows", [slice(None), slice(7, 8)], ids=["all", "one"])
def test_rows_alone_are_no_fold(rows: slice, write: Write, demo: Path, copy: Copy) -> None:
    """What the columns that read them know nothing of."""

    def enlarge(tensors: Tensors) -> None:
        tensors["model.layers.2.mlp.up_proj.weight_scale"][rows] *= 1.6

    [found] = faults(copy(write(SMOOTHED["packed-8-bits"]), enlarge), original=str(demo))
    assert found.startswith("model.layers.2.mlp.up_proj: ")


def test_a_fold_that_misses_its_targets_is_a_fault(write: Write, demo: Path, copy: Copy) -> None:
    def halve(tensors: Tensors) -> None:
        tensors["model.layers.2.input_layernorm.weight"] *= 0.5

    found = faults(copy(write(FORMATS["awq"]), halve), original=str(demo))
    layers = {fault.split(":")[0] for fault in found}
    assert {f"model.layers.2.self_attn.{part}_proj" for part in "qk"} <= layers
    assert all(layer.startswith("model.layers.2.self_attn.") for layer in layers)


def test_shards_with_an_index(write: Write, demo: Path, copy: Copy, tmp_path: Path) -> None:
    folder = copy(write(FORMATS["awq"]))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    weight_map = {name: f"model-0000{1 + place % 3}-of-00003.safetensors" for place, name in enumerate(names)}
    for shard in set(weight_map.values()):
        save_file({name: tensors[name] for name in names if weight_map[name] == shard}, folder / shard)
    (folder / "model.safetensors.index.json").write_text(
        json.dumps({"metadata": {}, "weight_map": weight_map}), encoding="utf-8"
    )
    assert faults(folder, original=str(demo)) == []
