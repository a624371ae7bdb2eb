"""Seeded faults, one at a time: each is found, and its line says where."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hyocr_core.errors import CheckpointError
from hyocr_core.formats import AwqFormat, CompressedFp8Format, Format, Fp8Format, GptqFormat, PackQuantizedFormat
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.verification.verify import verify

if TYPE_CHECKING:
    from tests.verification.conftest import Copy, Tensors, Write

pytestmark = pytest.mark.needs_methods

LAYER = "model.layers.2.self_attn.q_proj"
OTHER = "model.layers.1.self_attn.q_proj"
VISION = "vit.layers.0.self_attn.q_proj"
GPTQ = GptqFormat(4, 128, sym=True)
AWQ = AwqFormat(128, zero_point=True)
PACKED = PackQuantizedFormat(4, 128, sym=True)
PER_TENSOR = CompressedFp8Format("tensor", "static")
FP8 = Fp8Format("static")


def flip(tensor: Tensor, byte: int, mask: int) -> None:
    """Flip bits of one byte; of a little-endian bf16, byte 1 holds the sign and most of the exponent."""
    tensor.view(torch.uint8).view(-1)[byte] ^= mask


@dataclass(frozen=True)
class Seeded:
    """written: the format it happens in. expected: patterns, each of which some line must match."""

    written: Format
    expected: tuple[str, ...]
    tensors: Callable[[Tensors], object] | None = None
    config: Callable[[dict[str, Any]], object] | None = None
    beside_original: bool = False


def swap(tensors: Tensors) -> None:
    for name in [name for name in tensors if name.startswith(f"{LAYER}.")]:
        other = name.replace(LAYER, OTHER)
        tensors[name], tensors[other] = tensors[other], tensors[name]


def on_disk_names(config: dict[str, Any]) -> None:
    names = [name.replace("model.vision_tower", "vit").replace("patch_merger", "perceive") for name in config["ignore"]]
    config["ignore"] = [name.replace("fc1", "dense_h_to_4h").replace("fc2", "dense_4h_to_h") for name in names]


def without_vision(key: str) -> Callable[[dict[str, Any]], None]:
    def remove(config: dict[str, Any]) -> None:
        config[key].remove("model.vision_tower.layers.0.self_attn.q_proj")

    return remove


def set_to(name: str, place: tuple[int, ...], value: float) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        tensors[name][place] = value

    return edit


def permute(tensors: Tensors) -> None:
    tensors[f"{LAYER}.g_idx"] = tensors[f"{LAYER}.g_idx"].flip(0)


def make_plain(tensors: Tensors) -> None:
    for name in [name for name in tensors if name.startswith(f"{LAYER}.")]:
        del tensors[name]
    tensors[f"{LAYER}.weight"] = torch.zeros(256, 256, dtype=torch.bfloat16)


IN_MEMORY = "model.language_model.layers.2.self_attn.q_proj"
KEYS = "model.layers.2.self_attn.k_proj"
FAULTS = {
    "scale-nan": Seeded(GPTQ, (rf"{LAYER}.scales: \[1, 7\] is nan",), set_to(f"{LAYER}.scales", (1, 7), float("nan"))),
    "scale-zero": Seeded(
        PACKED, (rf"{LAYER}.weight_scale: \[3, 0\] is 0",), set_to(f"{LAYER}.weight_scale", (3, 0), 0)
    ),
    "scale-negative": Seeded(AWQ, (rf"{LAYER}.scales: \[0, 5\] is -1",), set_to(f"{LAYER}.scales", (0, 5), -1)),
    "scale-huge": Seeded(
        GPTQ, (f"{LAYER}: its largest weight is",), lambda tensors: flip(tensors[f"{LAYER}.scales"], 1, 0x40)
    ),
    "scale-doubled": Seeded(
        GPTQ,
        (f"{LAYER}: group 0 of output 0 is (1.[789]|2).* times the original's: its scale",),
        lambda tensors: tensors[f"{LAYER}.scales"][0, 0].mul_(2),
        beside_original=True,
    ),
    "all-scales-doubled": Seeded(
        AWQ,
        (f"{LAYER}: is not the original's weight: .* dB, at least 7 is due",),
        lambda tensors: tensors[f"{LAYER}.scales"].mul_(2),
        beside_original=True,
    ),
    "zeros-missing": Seeded(AWQ, (f"{LAYER}: qzeros is missing",), lambda tensors: tensors.pop(f"{LAYER}.qzeros")),
    "zeros-of-the-other-version": Seeded(
        GPTQ,
        (f"{LAYER}.qzeros: holds the zero point 7, but sym",),
        config=lambda c: c.update(checkpoint_format="gptq_v2"),
    ),
    "layers-swapped": Seeded(GPTQ, (f"{LAYER}: is not the", f"{OTHER}: is not the"), swap, beside_original=True),
    "ignored-by-on-disk-names": Seeded(
        PACKED,
        (f"{VISION}: is not quantized, but ignore .* not name it as model.vision_tower.*: vLLM and Transf",),
        config=on_disk_names,
    ),
    "vision-linear-not-ignored": Seeded(
        AWQ, (f"^{VISION}: is not quantized, but modules",), config=without_vision("modules_to_not_convert")
    ),
    "no-list-of-ignored": Seeded(
        AWQ,
        (f"^{VISION}: .*: Transformers would look for its codes",),
        config=lambda config: config.update(modules_to_not_convert=None),
    ),
    "head-not-ignored": Seeded(
        FP8, ("^lm_head: is not quantized",), config=lambda config: config["ignored_layers"].remove("lm_head")
    ),
    "quantized-but-ignored": Seeded(
        FP8, (f"^{LAYER}: is quantized, but ignored_layers",), config=lambda c: c["ignored_layers"].append(IN_MEMORY)
    ),
    "fused-scales-differ": Seeded(
        PER_TENSOR,
        (rf"{LAYER}.weight_scale: differs within a group .*: q_proj [\d.e-]+, k_proj",),
        lambda tensors: tensors[f"{KEYS}.weight_scale"].mul_(1.5),
    ),
    "fused-input-scales-differ": Seeded(
        FP8, (f"{LAYER}.input_scale: differs",), lambda tensors: tensors[f"{KEYS}.input_scale"].mul_(1.5)
    ),
    "fused-partly-quantized": Seeded(GPTQ, (f"^{LAYER}: is not quantized, but k_proj, v_proj is",), make_plain),
    "group-size-lies": Seeded(
        GPTQ, (rf"{LAYER}: scales has shape \[2, 256\], not \[4, 256\]",), config=lambda c: c.update(group_size=64)
    ),
    "bits-lie": Seeded(
        PACKED,
        (rf"{LAYER}: weight_packed has shape \[256, 32\], not \[256, 64\]",),
        config=lambda config: config["config_groups"]["group_0"]["weights"].update(num_bits=8),
    ),
    "strategy-lies": Seeded(
        PER_TENSOR,
        (rf"{LAYER}: weight_scale has shape \[1\], not \[256, 1\]",),
        config=lambda config: config["config_groups"]["group_0"]["weights"].update(strategy="channel"),
    ),
    "another-method": Seeded(
        GPTQ, (f"{LAYER}: g_idx is no tensor",), config=lambda c: c.update(quant_method="awq", zero_point=True)
    ),
    "groups-permuted": Seeded(GPTQ, (f"{LAYER}.g_idx: permutes the groups, but desc_act is false",), permute),
    "groups-out-of-range": Seeded(
        GptqFormat(4, 128, sym=True, desc_act=True),
        (f"{LAYER}: g_idx names groups 0 to 9, there are 2",),
        set_to(f"{LAYER}.g_idx", (5,), 9),
    ),
    "shape-lies": Seeded(PACKED, (f"{LAYER}.weight_shape: says",), set_to(f"{LAYER}.weight_shape", (0,), 128)),
    "code-nan": Seeded(
        FP8, (f"{LAYER}: holds NaN",), lambda tensors: tensors[f"{LAYER}.weight"].view(torch.uint8)[3, 3].fill_(0x7F)
    ),
    "carried-norm-changed": Seeded(
        GPTQ,
        (r"model.layers.0.input_layernorm.weight: differs from the original in 1 of 256 values, first at \[9\]",),
        lambda tensors: flip(tensors["model.layers.0.input_layernorm.weight"], 18, 0x10),
        beside_original=True,
    ),
    "carried-tensor-nan": Seeded(
        GPTQ, ("model.embed_tokens.weight: holds NaN",), set_to("model.embed_tokens.weight", (3, 3), float("nan"))
    ),
    "layer-missing": Seeded(
        GPTQ,
        (f"^{LAYER}: is missing: it is neither quantized",),
        lambda tensors: [tensors.pop(name) for name in list(tensors) if name.startswith(f"{LAYER}.")],
    ),
    "carried-tensor-missing": Seeded(
        GPTQ, ("^model.norm.weight: is missing",), lambda tensors: tensors.pop("model.norm.weight")
    ),
    "tensor-unknown": Seeded(
        GPTQ,
        (r"^model.layers.7.weight: is no tensor of the architecture \(model.safetensors\)",),
        lambda tensors: tensors.update({"model.layers.7.weight": torch.zeros(2)}),
    ),
    "plain-weight-left": Seeded(
        GPTQ,
        (f"{LAYER}: is quantized and has a plain weight too",),
        lambda tensors: tensors.update({f"{LAYER}.weight": torch.zeros(256, 256)}),
    ),
    "scale-of-the-wrong-dtype": Seeded(
        GPTQ,
        (f"{LAYER}: scales is int32, not bfloat16 or",),
        lambda tensors: tensors.update({f"{LAYER}.scales": tensors[f"{LAYER}.scales"].int()}),
    ),
    "plain-weight-of-8-bits": Seeded(
        GPTQ,
        (f"{VISION}.weight: is torch.float8_e4m3fn: neither a plain weight nor what gptq stores",),
        lambda tensors: tensors.update({f"{VISION}.weight": tensors[f"{VISION}.weight"].to(torch.float8_e4m3fn)}),
    ),
    "cache-scale-missing": Seeded(
        CompressedFp8Format("channel", "dynamic", kv_cache=True),
        ("^model.layers.0.self_attn.k_proj: has no k_scale",),
        lambda tensors: tensors.update({"model.layers.0.self_attn.v_scale": torch.ones(1)}),
    ),
}


@pytest.mark.parametrize("seeded", FAULTS.values(), ids=FAULTS)
def test_seeded_fault_is_found(seeded: Seeded, write: Write, copy: Copy, demo: Path) -> None:
    folder = copy(write(seeded.written), seeded.tensors, seeded.config)
    result = verify(folder, original=str(demo) if seeded.beside_original else None)
    found = [f"{fault.place}: {fault.problem}" for fault in result.faults]
    for pattern in seeded.expected:
        assert any(re.search(pattern, line) for line in found), found
    assert not any("\n" in line for line in found)


@pytest.fixture(scope="module")
def by_hyocr(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hyocr") / "out"
    quantize(RunConfig(model=str(demo), output=folder, method="rtn"))
    return folder


def lines(folder: Path) -> list[str]:
    return [f"{fault.place}: {fault.problem}" for fault in verify(folder).faults]


def test_one_changed_bit_is_found_by_the_digest(by_hyocr: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(by_hyocr, tmp_path / "copy")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    assert lines(folder) == ["model.safetensors: has other bytes than hyocr wrote (SHA-256 differs)"]


def test_a_config_that_says_other_than_was_written(by_hyocr: Path, copy: Copy) -> None:
    folder = copy(by_hyocr, None, lambda config: config.update(desc_act=True, sym=False))
    assert lines(folder) == [
        "config.json: has other bytes than hyocr wrote (SHA-256 differs)",
        "config.json: quantization_config: desc_act is True, hyocr wrote False",
        "config.json: quantization_config: sym is False, hyocr wrote True",
    ]


def test_a_layer_that_the_report_does_not_name(by_hyocr: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(by_hyocr, tmp_path / "copy")
    report = json.loads((folder / "hyocr_report.json").read_text())
    report["layers"][0]["name"] = "model.layers.0.self_attn.r_proj"
    (folder / "hyocr_report.json").write_text(json.dumps(report))
    found = lines(folder)
    assert "model.layers.0.self_attn.r_proj: is reported as quantized, but it is not" in found
    assert "model.layers.0.self_attn.q_proj: is quantized, but the report does not name it" in found


def test_a_report_that_cannot_be_read(by_hyocr: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(by_hyocr, tmp_path / "copy")
    (folder / "hyocr_report.json").write_text("{")
    (found,) = lines(folder)
    assert found.startswith("hyocr_report.json: ")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [("distribution", "hyocr-plugin-gone", "hyocr-plugin-gone"), ("version", "0.0.1", "version 0.0.1 wrote it, hyocr")],
)
def test_without_the_plugin_the_config_is_left_unchecked(
    key: str, value: str, said: str, by_hyocr: Path, copy: Copy
) -> None:
    """As older versions of hyocr wrote it, whose report does not say what they wrote."""
    folder = copy(by_hyocr, None, lambda config: config.update(desc_act=True))
    report = json.loads((folder / "hyocr_report.json").read_text())
    del report["quantization_config"]
    del report["output_sha256"]["config.json"]
    report["method"][key] = value
    (folder / "hyocr_report.json").write_text(json.dumps(report))
    result = verify(folder)
    assert result.faults == ()
    note = result.notes[-1]
    assert note.startswith("config.json was not compared with what rtn writes: ")
    assert said in note


def test_a_norm_that_a_method_cannot_have_rescaled(by_hyocr: Path, copy: Copy, demo: Path) -> None:
    """The report lists what was rescaled, and rtn rescales nothing."""

    def halve(tensors: Tensors) -> None:
        tensors["model.layers.2.input_layernorm.weight"] *= 0.5

    found = [fault.place for fault in verify(copy(by_hyocr, halve), original=str(demo)).faults]
    assert found == ["model.safetensors", "model.layers.2.input_layernorm.weight"]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: shutil.rmtree(folder), "is not a folder"),
        (lambda folder: (folder / "config.json").unlink(), "config.json is missing"),
        (lambda folder: (folder / "model.safetensors").unlink(), "neither model.safetensors nor"),
        (lambda folder: _cut(folder / "model.safetensors"), "model.safetensors"),
        (lambda folder: _edit_config(folder, "quantization_config", None), "has no quantization_config"),
        (lambda folder: _edit_config(folder, "quantization_config", 4), "quantization_config must be an object"),
        (lambda folder: _edit_quantization(folder, "quant_method", "bitsandbytes"), "quant_method: 'bitsandbytes'"),
        (lambda folder: _edit_quantization(folder, "bits", 3), "bits: 3 is not read by hyocr, only 4 or 8"),
    ],
)
def test_what_is_no_quantized_checkpoint_is_refused(
    spoil: Callable[[Path], object], message: str, write: Write, copy: Copy
) -> None:
    folder = copy(write(GPTQ))
    spoil(folder)
    with pytest.raises(CheckpointError, match=re.escape(message)):
        verify(folder)


def test_a_missing_shard_is_refused(write: Write, copy: Copy) -> None:
    folder = copy(write(GPTQ))
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    weight_map = dict.fromkeys(tensors, "model-00001-of-00002.safetensors") | {"x": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises(CheckpointError, match=r"model-00002-of-00002\.safetensors"):
        verify(folder)


def test_the_original_must_not_be_quantized(write: Write) -> None:
    with pytest.raises(CheckpointError, match="is quantized too"):
        verify(write(GPTQ), original=str(write(AWQ)))


def _cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def _edit_config(folder: Path, key: str, value: object) -> None:
    config = json.loads((folder / "config.json").read_text()) | {key: value}
    (folder / "config.json").write_text(json.dumps(config))


def _edit_quantization(folder: Path, key: str, value: object) -> None:
    quantization = json.loads((folder / "config.json").read_text())["quantization_config"] | {key: value}
    _edit_config(folder, "quantization_config", quantization)
