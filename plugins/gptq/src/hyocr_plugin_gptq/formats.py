"""What each checkpoint format says in config.json, and which layers it can hold. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hyocr_core import ConfigError, QuantizedNames
from hyocr_plugin_gptq.config import GROUP_SIZES, RtnConfig


def check_shapes(shapes: Mapping[str, tuple[int, int]], config: RtnConfig) -> None:
    """Raise ConfigError for the first layer (name -> (N, K)) that the format cannot hold."""
    for name, (outputs, inputs) in shapes.items():
        _check_inputs(name, inputs, config)
        _check_outputs(name, outputs, config)


def _check_inputs(name: str, inputs: int, config: RtnConfig) -> None:
    factor = config.pack_factor
    if inputs % factor:
        raise ConfigError(
            f"{name}: its width of {inputs} input channels is not a multiple of {factor}, "
            f"so {config.bits}-bit codes do not fill whole int32; leave the layer out with `ignore`"
        )
    if config.group_size != -1 and inputs % config.group_size:
        works = ", ".join(str(size) for size in (*(g for g in GROUP_SIZES if inputs % g == 0), -1))
        raise ConfigError(
            f"{name}: group_size {config.group_size} does not divide its width of {inputs} input channels; "
            f"use one of: {works}, or leave the layer out with `ignore`"
        )


def _check_outputs(name: str, outputs: int, config: RtnConfig) -> None:
    packs_zeros = config.format == "gptq" or not config.sym
    if packs_zeros and outputs % config.pack_factor:
        raise ConfigError(
            f"{name}: its {outputs} output channels are not a multiple of {config.pack_factor}, so its zero points "
            "do not fill whole int32; use format: compressed-tensors with sym: true, or leave it out with `ignore`"
        )


def gptq_config(config: RtnConfig) -> dict[str, Any]:
    """Return the `quantization_config` of format `gptq`.

    It needs no list of layers: the runtimes see in the shards which are quantized. `desc_act` is false even when
    columns were quantized in order of activation: true would announce permuted groups, and here each channel
    stays in its own.
    """
    return {
        "quant_method": "gptq",
        "bits": config.bits,
        "group_size": config.group_size,
        "desc_act": False,
        "sym": config.sym,
        "lm_head": False,
        "checkpoint_format": "gptq",
        "pack_dtype": "int32",
    }


def compressed_config(names: QuantizedNames, config: RtnConfig) -> dict[str, Any]:
    """Return the `quantization_config` of format `compressed-tensors`, which names every unquantized linear."""
    per_channel = config.group_size == -1
    weights = {
        "num_bits": config.bits,
        "type": "int",
        "symmetric": config.sym,
        "dynamic": False,
        "strategy": "channel" if per_channel else "group",
        "group_size": None if per_channel else config.group_size,
        # Nothing is permuted on disk, so a reader has no order to undo.
        "actorder": None,
    }
    group = {"targets": ["Linear"], "input_activations": None, "output_activations": None, "weights": weights}
    return {
        "quant_method": "compressed-tensors",
        "format": "pack-quantized",
        "quantization_status": "compressed",
        "ignore": list(names.ignored),
        "config_groups": {"group_0": group},
    }
