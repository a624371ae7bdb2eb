"""Quantized checkpoints that another tool wrote, seen as full-precision ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.contract.types import QuantizedNames
from hyocr_core.errors import CheckpointError
from hyocr_core.formats import Fp8Format, GptqFormat
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.own_format import OwnFormat
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig

pytestmark = pytest.mark.needs_methods

LAYER = "model.layers.1.mlp.down_proj"


@pytest.fixture(scope="module")
def by_hyocr(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hyocr") / "out"
    quantize(RunConfig(model=str(demo), output=folder, method="rtn"))
    return folder


@pytest.fixture
def by_another(by_hyocr: Path, tmp_path: Path) -> Path:
    """The same tensors without a report of how they were made."""
    folder = shutil.copytree(by_hyocr, tmp_path / "copy")
    (folder / "hyocr_report.json").unlink()
    return folder


def test_the_format_reads_what_the_plugin_reads(by_hyocr: Path, by_another: Path, demo: Path) -> None:
    theirs = DequantizedCheckpoint(CheckpointReader(by_another))
    assert set(theirs.tensors) == set(CheckpointReader(demo).tensors)
    own, tensors = OwnFormat(read_report(by_hyocr), torch.bfloat16), load_file(by_hyocr / "model.safetensors")
    assert own.shapes == dict(theirs.shapes)
    for layer in own.shapes:
        packed = {name.rpartition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{layer}.")}
        assert torch.equal(own.unpack(layer, packed), theirs.read([f"{layer}.weight"])[f"{layer}.weight"])


@pytest.mark.parametrize(
    ("names", "dtype"),
    [
        ({"dtype": "float16"}, torch.float16),
        ({"torch_dtype": "float32"}, torch.float32),
        ({}, torch.bfloat16),
    ],
)
def test_weights_get_the_dtype_that_config_json_names(
    names: dict[str, str], dtype: torch.dtype, by_hyocr: Path, tmp_path: Path
) -> None:
    folder = shutil.copytree(by_hyocr, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    for key in ("dtype", "torch_dtype"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config | names))
    source = DequantizedCheckpoint(CheckpointReader(folder))
    weight = source.read([f"{LAYER}.weight"])[f"{LAYER}.weight"]
    assert weight.dtype == source.tensors[f"{LAYER}.weight"].dtype == dtype
    assert source.tensors[f"{LAYER}.weight"].nbytes == weight.nbytes
    tensors = load_file(folder / "model.safetensors")
    packed = {name.rpartition(".")[2]: value for name, value in tensors.items() if name.startswith(f"{LAYER}.")}
    assert torch.equal(weight, GptqFormat(4, 128, sym=True).dequantize(packed, (256, 512), dtype))


def test_a_quantization_config_that_is_none_is_refused(by_another: Path) -> None:
    config = json.loads((by_another / "config.json").read_text())
    (by_another / "config.json").write_text(json.dumps(config | {"quantization_config": ["gptq"]}))
    with pytest.raises(CheckpointError, match=r"copy/config.json: quantization_config must be an object"):
        DequantizedCheckpoint(CheckpointReader(by_another))


def test_a_dtype_of_no_weight_is_refused(by_another: Path) -> None:
    config = json.loads((by_another / "config.json").read_text())
    (by_another / "config.json").write_text(json.dumps(config | {"dtype": "int8"}))
    with pytest.raises(CheckpointError, match=r"config.json: dtype 'int8' is none of bfloat16, float16, float32"):
        DequantizedCheckpoint(CheckpointReader(by_another))


def test_names_in_memory_make_a_model_too(by_another: Path) -> None:
    tensors = load_file(by_another / "model.safetensors")
    names = {name: name.replace("model.layers.", "model.language_model.layers.") for name in tensors}
    save_file({names[name]: tensor for name, tensor in tensors.items()}, by_another / "model.safetensors")
    source = DequantizedCheckpoint(CheckpointReader(by_another))
    model = HunYuanVL(source, torch.device("cpu"))
    assert "model.language_model.layers.1.mlp.down_proj" in model.linears


def test_a_layer_that_lacks_a_tensor_is_named(by_another: Path) -> None:
    tensors = load_file(by_another / "model.safetensors")
    del tensors[f"{LAYER}.scales"]
    save_file(tensors, by_another / "model.safetensors")
    source = DequantizedCheckpoint(CheckpointReader(by_another))
    with pytest.raises(CheckpointError, match=f"{LAYER}: scales is missing"):
        source.read([f"{LAYER}.weight"])


def test_an_unknown_kind_is_refused(by_another: Path) -> None:
    config = json.loads((by_another / "config.json").read_text())
    config["quantization_config"]["quant_method"] = "codebook"
    (by_another / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="quant_method: 'codebook' is not read by hyocr"):
        DequantizedCheckpoint(CheckpointReader(by_another))


def test_fp8_inputs_are_rounded_as_runtimes_do(demo: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(demo, tmp_path / "fp8")
    tensors = load_file(folder / "model.safetensors")
    codes = (tensors.pop(f"{LAYER}.weight").float() / 0.01).to(torch.float8_e4m3fn)
    tensors |= {f"{LAYER}.weight": codes, f"{LAYER}.weight_scale": torch.tensor(0.01)}
    save_file(tensors | {f"{LAYER}.input_scale": torch.tensor(0.5)}, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = Fp8Format("static").quantization_config(QuantizedNames((), ()))
    (folder / "config.json").write_text(json.dumps(config))
    source = DequantizedCheckpoint(CheckpointReader(folder))
    linear = torch.nn.Linear(512, 256, bias=False)
    linear.weight.data = source.read([f"{LAYER}.weight"])[f"{LAYER}.weight"].float()
    assert torch.equal(linear.weight, (codes.float() * 0.01).bfloat16().float())
    source.emulate({LAYER: linear})
    # 1000 / 0.5 is beyond 448, 3.3 / 0.5 = 6.6 lies between the codes 6.5 and 7.
    inputs = torch.zeros(1, 512)
    inputs[0, :2] = torch.tensor([1000.0, 3.3])
    expected = 224.0 * linear.weight[:, 0] + 3.25 * linear.weight[:, 1]
    torch.testing.assert_close(linear(inputs)[0], expected)
