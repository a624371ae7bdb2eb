"""Reading a quantization_config: ours, and those that other tools write."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from hyocr_core import QuantizedNames
from hyocr_core.errors import CheckpointError
from hyocr_core.formats import (
    AwqFormat,
    CompressedFp8Format,
    Format,
    Fp8Format,
    GptqFormat,
    IntQuantizedFormat,
    PackQuantizedFormat,
)
from hyocr_core.models.known_formats import stored_formats

NAMES = QuantizedNames(
    ("model.language_model.layers.0.mlp.up_proj",), ("model.vision_tower.layers.0.mlp.fc1", "lm_head")
)
FORMATS: list[Format] = [
    GptqFormat(4, 128, sym=True),
    GptqFormat(8, -1, sym=False, desc_act=True, version=2),
    AwqFormat(64, zero_point=False),
    PackQuantizedFormat(4, 32, sym=False),
    PackQuantizedFormat(8, -1, sym=True),
    PackQuantizedFormat(4, 32, sym=True, permuted=True),
    Fp8Format("dynamic"),
    CompressedFp8Format("tensor", "static"),
    CompressedFp8Format("channel", "dynamic", kv_cache=True),
    IntQuantizedFormat("channel", "dynamic"),
    IntQuantizedFormat("tensor", "static"),
]

GPTQMODEL = {
    "bits": 4, "dynamic": None, "group_size": 128, "desc_act": False, "lm_head": False, "quant_method": "gptq",
    "checkpoint_format": "gptq", "pack_dtype": "int32", "sym": True,
    "meta": {"quantizer": ["gptqmodel:7.7.0"], "damp_percent": 0.01, "true_sequential": True},
}  # fmt: skip
AUTOAWQ = {
    "bits": 4, "group_size": 128, "modules_to_not_convert": None, "quant_method": "awq", "version": "GEMM",
    "zero_point": True,
}  # fmt: skip
LLM_COMPRESSOR: dict[str, Any] = {
    "config_groups": {
        "group_0": {
            "format": "pack-quantized", "input_activations": None, "output_activations": None, "targets": ["Linear"],
            "weights": {
                "actorder": "static", "block_structure": None, "dynamic": False, "group_size": 128, "num_bits": 4,
                "observer": "minmax", "observer_kwargs": {}, "scale_dtype": None, "strategy": "group",
                "symmetric": True, "type": "int", "zp_dtype": None,
            },
        }
    },
    "format": "pack-quantized", "global_compression_ratio": None, "ignore": ["lm_head", "re:.*vision_tower.*"],
    "kv_cache_scheme": None, "quant_method": "compressed-tensors", "quantization_status": "compressed",
    "sparsity_config": {}, "transform_config": {}, "version": "0.13.0",
}  # fmt: skip
LLM_COMPRESSOR_FP8 = {
    "config_groups": {
        "group_0": {
            "format": None, "output_activations": None, "targets": ["Linear"],
            "input_activations": {
                "actorder": None, "dynamic": True, "group_size": None, "num_bits": 8, "observer": None,
                "strategy": "token", "symmetric": True, "type": "float",
            },
            "weights": {
                "actorder": None, "dynamic": False, "group_size": None, "num_bits": 8, "strategy": "channel",
                "symmetric": True, "type": "float",
            },
        }
    },
    "format": "naive-quantized", "ignore": ["lm_head"], "quant_method": "compressed-tensors",
}  # fmt: skip


@pytest.mark.parametrize("written", FORMATS, ids=str)
def test_what_hyocr_writes_is_read_back(written: Format) -> None:
    assert stored_formats(written.quantization_config(NAMES)).formats == (written,)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (GPTQMODEL, GptqFormat(4, 128, sym=True)),
        ({"quant_method": "gptq", "bits": 8, "group_size": 32}, GptqFormat(8, 32, sym=True)),
        (AUTOAWQ, AwqFormat(128, zero_point=True)),
        ({"quant_method": "awq", "w_bit": 4, "q_group_size": 64, "zero_point": True}, AwqFormat(64, zero_point=True)),
        (LLM_COMPRESSOR, PackQuantizedFormat(4, 128, sym=True)),
        (LLM_COMPRESSOR_FP8, CompressedFp8Format("channel", "dynamic")),
        ({"quant_method": "fp8", "activation_scheme": "static"}, Fp8Format("static")),
    ],
)
def test_what_others_write_is_read(config: dict[str, Any], expected: Format) -> None:
    assert stored_formats(config).formats == (expected,)


def changed(config: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    config = copy.deepcopy(config)
    part, (*parents, last) = config, path.split(".")
    for parent in parents:
        part = part[parent]
    part[last] = value
    return config


WEIGHTS = "config_groups.group_0.weights."


@pytest.mark.parametrize(
    ("config", "path", "value", "message"),
    [
        (GPTQMODEL, "quant_method", "auto-round", "quant_method: 'auto-round' is not read by hyocr, only awq or comp"),
        (GPTQMODEL, "bits", 3, "bits: 3 is not read by hyocr, only 4 or 8"),
        (GPTQMODEL, "bits", True, "bits: True is not"),
        (GPTQMODEL, "group_size", 0, "group_size: 0 is not read by hyocr, only -1 or a positive number"),
        (GPTQMODEL, "checkpoint_format", "marlin", "checkpoint_format: 'marlin'"),
        (GPTQMODEL, "pack_dtype", "int16", "pack_dtype: 'int16'"),
        (GPTQMODEL, "lm_head", True, "lm_head: True"),
        (GPTQMODEL, "dynamic", {"+:.*": {"bits": 3}}, r"bits: 3 is not read .*\(in dynamic.\+:\.\*\)"),
        (GPTQMODEL, "dynamic", {"+:.*": 8}, r"dynamic.\+:\.\*: 8 is not read by hyocr, only a mapping"),
        (GPTQMODEL, "dynamic", {"-:(": {}}, r"dynamic: '-:\(' is no regular expression"),
        (GPTQMODEL, "dynamic", ["-:.*"], "dynamic: .* only a mapping"),
        (AUTOAWQ, "version", "gemv", "version: 'gemv'"),
        (AUTOAWQ, "bits", 8, "bits: 8"),
        (AUTOAWQ, "modules_to_not_convert", "vision", "modules_to_not_convert: 'vision' .* a list of names"),
        (LLM_COMPRESSOR, "transform_config", {"config_groups": {"u": {}}}, "transform_config: {.*} is not read"),
        (LLM_COMPRESSOR, "config_groups", {}, "config_groups: {} .* only one or more groups"),
        (LLM_COMPRESSOR, "config_groups", {"W8A8": ["Linear"]}, r"W8A8: \['Linear'\] .* only a mapping"),
        (
            LLM_COMPRESSOR,
            "config_groups.group_0.targets",
            ["Embedding"],
            "config_groups.targets: 'Embedding' .*Linear",
        ),
        (LLM_COMPRESSOR, "config_groups.group_0.targets", [], r"config_groups.targets: \[\]"),
        (LLM_COMPRESSOR, "config_groups.group_0.targets", ["re:("], r"targets: 're:\(' is no regular expression"),
        (LLM_COMPRESSOR, "config_groups.group_0.format", "int-quantized", "input_activations: None"),
        (LLM_COMPRESSOR, "config_groups.group_0.format", "nvfp4-pack-quantized", "format: 'nvfp4-pack-quantized'"),
        (LLM_COMPRESSOR, "config_groups.group_0.format", "gptq", "format: 'gptq' .* only float-quantized or int-quant"),
        (LLM_COMPRESSOR_FP8, "format", "marlin-24", "format: 'marlin-24'"),
        (LLM_COMPRESSOR_FP8, "format", "mixed-precision", "format: 'mixed-precision'"),
        (LLM_COMPRESSOR, "config_groups.group_0.input_activations", {}, "input_activations: {}"),
        (LLM_COMPRESSOR, f"{WEIGHTS}strategy", "tensor", "strategy: 'tensor'"),
        (LLM_COMPRESSOR, f"{WEIGHTS}num_bits", 2, "num_bits: 2"),
        (LLM_COMPRESSOR, f"{WEIGHTS}type", "float", "type: 'float'"),
        (LLM_COMPRESSOR, f"{WEIGHTS}group_size", None, "group_size: None"),
        (LLM_COMPRESSOR, "ignore", ["re:("], "ignore: 're:\\(' is no regular expression"),
        (LLM_COMPRESSOR_FP8, f"{WEIGHTS}strategy", "block", "strategy: 'block'"),
        (LLM_COMPRESSOR_FP8, "config_groups.group_0.input_activations", None, "input_activations: None"),
        ({"quant_method": "fp8", "activation_scheme": "static"}, "weight_block_size", [128, 128], "weight_block_size"),
    ],
)
def test_what_is_not_read_is_refused_by_key_and_value(
    config: dict[str, Any], path: str, value: Any, message: str
) -> None:
    with pytest.raises(CheckpointError, match=f"^config.json: quantization_config: {message}"):
        stored_formats(changed(config, path, value))


VISION = "model.vision_tower.layers.0.mlp.fc1"
DUE = {
    "bits": 4, "group_size": 128, "activation_scheme": "dynamic", "format": "pack-quantized",
    "config_groups": LLM_COMPRESSOR["config_groups"],
}  # fmt: skip
"""What the methods ask for beside the list."""
BOTH, NONE = {"vLLM", "Transformers"}, set[str]()


@pytest.mark.parametrize(
    ("config", "name", "by"),
    [
        # The rules as formats are matched by vLLM 0.32 and Transformers 5.23, entry by entry.
        ({"quant_method": "awq", "modules_to_not_convert": [VISION]}, VISION, BOTH),
        ({"quant_method": "awq", "modules_to_not_convert": ["vision_tower"]}, VISION, {"vLLM"}),
        ({"quant_method": "awq", "modules_to_not_convert": ["model.vision_tower"]}, VISION, BOTH),
        ({"quant_method": "awq", "modules_to_not_convert": ["fc1"]}, VISION, BOTH),
        ({"quant_method": "awq", "modules_to_not_convert": ["vit.layers.0.mlp.dense_h_to_4h"]}, VISION, NONE),
        ({"quant_method": "fp8", "ignored_layers": [VISION]}, VISION, BOTH),
        ({"quant_method": "fp8", "modules_to_not_convert": [VISION]}, VISION, BOTH),
        ({"quant_method": "fp8", "ignored_layers": ["model.vision_tower"]}, VISION, {"Transformers"}),
        ({"quant_method": "fp8", "ignored_layers": ["layers.1"]}, "layers.11", NONE),
        ({"quant_method": "compressed-tensors", "ignore": [VISION]}, VISION, BOTH),
        ({"quant_method": "compressed-tensors", "ignore": ["model.vision_tower"]}, VISION, NONE),
        ({"quant_method": "compressed-tensors", "ignore": ["re:.*vision_tower"]}, VISION, BOTH),
        ({"quant_method": "compressed-tensors", "ignore": ["re:vision_tower"]}, VISION, NONE),
        ({"quant_method": "gptq"}, VISION, NONE),
    ],
)
def test_ignored_by(config: dict[str, Any], name: str, by: set[str]) -> None:
    assert stored_formats(DUE | config).ignored.by(name) == by


def test_the_list_is_found_by_its_key() -> None:
    for written in FORMATS:
        ignored = stored_formats(written.quantization_config(NAMES)).ignored
        assert ignored.entries == (None if isinstance(written, GptqFormat) else NAMES.ignored)
    assert stored_formats(AUTOAWQ).ignored.entries is None
