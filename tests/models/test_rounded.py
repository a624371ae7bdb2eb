"""Weights rounded to nearest in another checkpoint's format, against loops over groups and against the methods."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.errors import CheckpointError
from hyocr_core.formats import AwqFormat, CompressedFp8Format, Format, Fp8Format, GptqFormat, PackQuantizedFormat
from hyocr_core.models.load import open_weights
from hyocr_core.models.rounded import RoundedCheckpoint
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig

pytestmark = pytest.mark.needs_methods

LAYER = "model.layers.1.mlp.down_proj"
E4M3 = sorted(
    {sign * 2.0**exponent * (1 + step / 8) for sign in (1, -1) for exponent in range(-6, 9) for step in range(8)}
    | {sign * step * 2.0**-9 for sign in (1, -1) for step in range(8)}
)
VALUES = [value for value in E4M3 if abs(value) <= 448]


def bf16(value: float) -> float:
    return torch.tensor(value).bfloat16().item()


def slow_integer(weight: Tensor, bits: int, group_size: int, *, sym: bool) -> Tensor:
    """One weight at a time, in Python's floats."""
    rounded = torch.empty_like(weight)
    size = weight.shape[1] if group_size == -1 else group_size
    for output, row in enumerate(weight.tolist()):
        for start in range(0, len(row), size):
            group = row[start : start + size]
            low, high = min(0.0, *group), max(0.0, *group)
            if sym:
                high = max(-low, high)
                low = -high
            scale = bf16((high - low) / (2**bits - 1)) or 1.0
            zero = 2 ** (bits - 1) if sym else min(max(round(-low / scale), 0), 2**bits - 1)
            codes = [min(max(round(value / scale) + zero, 0), 2**bits - 1) for value in group]
            rounded[output, start : start + size] = torch.tensor([bf16((code - zero) * scale) for code in codes])
    return rounded


def slow_fp8(weight: Tensor, largest: list[float]) -> Tensor:
    """largest: by output, what becomes 448."""
    rows = []
    for row, most in zip(weight.tolist(), largest, strict=True):
        scale = bf16(most / 448)
        rows.append([bf16(min(VALUES, key=lambda v, x=value / scale: abs(v - x)) * scale) for value in row])  # type: ignore[misc]
    return torch.tensor(rows).bfloat16()


@pytest.mark.parametrize(
    ("written", "bits", "group_size", "sym"),
    [
        (GptqFormat(4, 32, sym=True), 4, 32, True),
        (GptqFormat(8, -1, sym=True), 8, -1, True),
        (GptqFormat(4, 32, sym=True, desc_act=True, version=2), 4, 32, True),
        (PackQuantizedFormat(4, 32, sym=False), 4, 32, False),
        (PackQuantizedFormat(4, -1, sym=True, permuted=True), 4, -1, True),
        (AwqFormat(32, zero_point=True), 4, 32, False),
        (AwqFormat(-1, zero_point=False), 4, -1, True),
    ],
)
def test_integers_are_rounded_group_by_group(written: Format, bits: int, group_size: int, sym: bool) -> None:
    torch.manual_seed(0)
    weight = (torch.randn(5, 96) * torch.rand(5, 1)).bfloat16()
    weight[1, :32] = 0  # a group without any range
    weight[2, 32:64] = weight[2, 32:64].abs()  # its range begins at zero
    before = weight.clone()
    assert torch.equal(written.nearest(weight), slow_integer(weight, bits, group_size, sym=sym))
    assert torch.equal(weight, before)


def test_fp8_has_a_scale_for_all_or_for_each_output() -> None:
    torch.manual_seed(0)
    weight = (torch.randn(4, 9) * torch.tensor([[1e-3], [1.0], [30.0], [0.1]])).bfloat16()
    most = weight.abs().max().item()
    rows = [row.abs().max().item() for row in weight]
    assert torch.equal(CompressedFp8Format("channel", "static").nearest(weight), slow_fp8(weight, rows))
    assert torch.equal(CompressedFp8Format("tensor", "dynamic").nearest(weight), slow_fp8(weight, [most] * 4))
    other = torch.full((1, 9), -7 * most).bfloat16()
    assert torch.equal(Fp8Format("static").nearest(weight, [other]), slow_fp8(weight, [7 * most] * 4))


def test_zeros_stay_zeros() -> None:
    weight = torch.zeros(8, 32).bfloat16()
    for written in (
        GptqFormat(4, 32, sym=True),
        AwqFormat(32, zero_point=True),
        CompressedFp8Format("channel", "static"),
    ):
        assert torch.equal(written.nearest(weight), weight)


def made(demo: Path, folder: Path, method: str, **options: Any) -> Path:
    quantize(RunConfig(model=str(demo), output=folder, method=method, options=options))
    return folder


@pytest.fixture(scope="module")
def by_rtn(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made(demo, tmp_path_factory.mktemp("rtn") / "out", "rtn", mse=False, group_size=64)


@pytest.fixture(scope="module")
def by_fp8(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the vision tower; one scale per weight, which fused layers share."""
    options: dict[str, Any] = {"activation_scheme": "dynamic", "weight_strategy": "tensor", "quant_vit": True}
    return made(demo, tmp_path_factory.mktemp("fp8") / "out", "fp8", **options)


def rounded(demo: Path, folder: Path) -> RoundedCheckpoint:
    return RoundedCheckpoint(open_weights(demo), open_weights(folder))


@pytest.mark.parametrize("name", ["by_rtn", "by_fp8"])
def test_methods_that_merely_round_come_to_the_same(demo: Path, name: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(name)
    view, method = rounded(demo, folder), open_weights(folder)
    expected, found = method.read(method.tensors), view.read(view.tensors)
    assert expected.keys() == found.keys() == CheckpointReader(demo).tensors.keys()
    for tensor, weight in found.items():
        assert torch.equal(weight, expected[tensor]), tensor
    assert len(view.shapes) == (28 if name == "by_rtn" else len(read_report(folder).layers))


def test_names_in_memory_are_the_same_layers(demo: Path, by_rtn: Path, tmp_path: Path) -> None:
    foreign = shutil.copytree(by_rtn, tmp_path / "foreign")
    (foreign / "hyocr_report.json").unlink()
    tensors = load_file(foreign / "model.safetensors")
    names = {name: name.replace("model.layers.", "model.language_model.layers.") for name in tensors}
    save_file({names[name]: tensor for name, tensor in tensors.items()}, foreign / "model.safetensors")
    name = f"{LAYER}.weight"
    assert torch.equal(rounded(demo, foreign).read([name])[name], rounded(demo, by_rtn).read([name])[name])


def test_inputs_are_quantized_with_the_models_own_scale(demo: Path, by_fp8: Path, tmp_path: Path) -> None:
    static = shutil.copytree(by_fp8, tmp_path / "static")
    (static / "hyocr_report.json").unlink()
    tensors = load_file(static / "model.safetensors")
    scales = {f"{name.removesuffix('_scale')}": 0 for name in tensors if name.endswith(".weight_scale")}
    tensors |= {f"{name.removesuffix('.weight')}.input_scale": torch.tensor([0.5]).bfloat16() for name in scales}
    save_file(tensors, static / "model.safetensors")
    config = json.loads((static / "config.json").read_text())
    group = config["quantization_config"]["config_groups"]["group_0"]
    group["input_activations"] |= {"dynamic": False, "strategy": "tensor"}
    (static / "config.json").write_text(json.dumps(config))
    linear = torch.nn.Linear(512, 256, bias=False)
    rounded(demo, static).emulate({LAYER: linear})
    # 1000 / 0.5 is beyond 448, 3.3 / 0.5 = 6.6 lies between the codes 6.5 and 7.
    inputs = torch.zeros(1, 512)
    inputs[0, :2] = torch.tensor([1000.0, 3.3])
    torch.testing.assert_close(linear(inputs)[0], 224.0 * linear.weight[:, 0] + 3.25 * linear.weight[:, 1])


def test_what_cannot_be_rounded_is_refused(demo: Path, by_rtn: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="checkpoint: is not quantized: there is no format"):
        rounded(demo, demo)
    with pytest.raises(CheckpointError, match="out: is quantized; only full-precision weights"):
        rounded(by_rtn, by_rtn)
    codebook = shutil.copytree(by_rtn, tmp_path / "codebook")
    config = json.loads((codebook / "config.json").read_text())
    config["quantization_config"]["quant_method"] = "codebook"
    (codebook / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"codebook: cannot round to nearest in its format: .*'codebook' is not"):
        rounded(demo, codebook)
    smaller = shutil.copytree(demo, tmp_path / "smaller")
    tensors = {n: t for n, t in load_file(demo / "model.safetensors").items() if ".layers.3." not in n or "vit" in n}
    save_file(tensors, smaller / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((smaller / "config.json").read_text())
    config["text_config"]["num_hidden_layers"] = 3
    config["text_config"].pop("layer_types", None)
    (smaller / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match=r"smaller: has no model.layers.3.mlp.down_proj.*\[256, 512\]"):
        rounded(smaller, by_rtn)
