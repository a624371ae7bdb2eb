"""Read a quantization_config, ours or another tool's. Imports no torch.

What hyocr cannot read is refused by key and value: guessing here would dequantize garbage later.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from hyocr_core.errors import CheckpointError
from hyocr_core.formats.awq import BITS as AWQ_BITS
from hyocr_core.formats.awq import AwqFormat
from hyocr_core.formats.base import Format
from hyocr_core.formats.fp8 import CompressedFp8Format, Fp8Format
from hyocr_core.formats.gptq import GptqFormat
from hyocr_core.formats.ignored import Ignored
from hyocr_core.formats.pack_quantized import PackQuantizedFormat

BITS = (4, 8)
_MISSING = object()


def read_format(config: Mapping[str, Any]) -> Format:
    """Return the format that `config` describes; raises CheckpointError naming the key and value that is not read."""
    return _READERS[_method(config)](config)


def read_ignored(config: Mapping[str, Any]) -> Ignored:
    """Return the list of unquantized linears in `config`; raises CheckpointError when it cannot be one."""
    match _method(config):
        case "gptq":
            return Ignored("", None, "exact")
        case "awq":
            return Ignored("modules_to_not_convert", _names(config, "modules_to_not_convert"), "substring")
        case "fp8":
            # vLLM takes both keys, the first when it has entries.
            key = "ignored_layers" if config.get("ignored_layers") else "modules_to_not_convert"
            return Ignored("ignored_layers", _names(config, key) or (), "exact")
        case _:
            return Ignored("ignore", _names(config, "ignore") or (), "pattern")


def _gptq(config: Mapping[str, Any]) -> Format:
    if config.get("dynamic"):
        raise _refusal("dynamic", config["dynamic"], "one setting for all layers")
    _one_of(config, "lm_head", (False, None), default=False)
    _one_of(config, "pack_dtype", ("int32", None), default=None)
    written = _one_of(config, "checkpoint_format", ("gptq", "gptq_v2", None), default=None)
    return GptqFormat(
        bits=_one_of(config, "bits", BITS),
        group_size=_group_size(config, "group_size"),
        sym=_one_of(config, "sym", (True, False), default=True),
        desc_act=_one_of(config, "desc_act", (True, False), default=False),
        version=2 if written == "gptq_v2" else 1,
    )


def _awq(config: Mapping[str, Any]) -> Format:
    _one_of(config, "w_bit" if "w_bit" in config else "bits", (AWQ_BITS,))
    _one_of({"version": str(config.get("version", "gemm")).lower()}, "version", ("gemm",))
    size = _group_size(config, "q_group_size" if "q_group_size" in config else "group_size")
    return AwqFormat(size, _one_of(config, "zero_point", (True, False), default=True))


def _fp8(config: Mapping[str, Any]) -> Format:
    _one_of(config, "weight_block_size", (None,), default=None)
    return Fp8Format(_one_of(config, "activation_scheme", ("static", "dynamic")))


def _compressed(config: Mapping[str, Any]) -> Format:
    group = _only_group(config)
    kind = _one_of(config, "format", tuple(_COMPRESSED))
    _one_of(group, "format", (None, kind), default=None)
    _one_of(group, "output_activations", (None,), default=None)
    targets = group.get("targets")
    if targets != ["Linear"]:
        raise _refusal("config_groups.targets", targets, "['Linear']")
    written = _COMPRESSED[kind](group)
    if isinstance(written, CompressedFp8Format) and config.get("kv_cache_scheme"):
        return replace(written, kv_cache=True)
    return written


def _packed(group: Mapping[str, Any]) -> Format:
    weights = _mapping(group, "weights")
    _one_of(group, "input_activations", (None,), default=None)
    _one_of(weights, "type", ("int",))
    per_channel = _one_of(weights, "strategy", ("group", "channel")) == "channel"
    order = _one_of(weights, "actorder", (None, False, "static", "weight", "group", "dynamic", True), default=None)
    return PackQuantizedFormat(
        bits=_one_of(weights, "num_bits", BITS),
        group_size=-1 if per_channel else _group_size(weights, "group_size"),
        sym=_one_of(weights, "symmetric", (True, False), default=True),
        permuted=order in ("group", "dynamic", True),
    )


def _float(group: Mapping[str, Any]) -> Format:
    weights, inputs = _mapping(group, "weights"), _mapping(group, "input_activations")
    for part in (weights, inputs):
        _one_of(part, "num_bits", (8,))
        _one_of(part, "type", ("float",))
        _one_of(part, "symmetric", (True,), default=True)
    dynamic = _one_of(inputs, "dynamic", (True, False), default=False)
    _one_of(inputs, "strategy", ("token", "tensor") if dynamic else ("tensor",))
    strategy = _one_of(weights, "strategy", ("tensor", "channel"))
    return CompressedFp8Format(strategy, "dynamic" if dynamic else "static")


_READERS = {"gptq": _gptq, "awq": _awq, "fp8": _fp8, "compressed-tensors": _compressed}
# Two names of the same tensors: older tools say naive.
_COMPRESSED = {"pack-quantized": _packed, "float-quantized": _float, "naive-quantized": _float}


def _method(config: Mapping[str, Any]) -> str:
    return str(_one_of(config, "quant_method", tuple(_READERS)))


def _only_group(config: Mapping[str, Any]) -> Mapping[str, Any]:
    found = _mapping(config, "config_groups")
    if len(found) != 1:
        raise _refusal("config_groups", sorted(found), "one group")
    return _mapping(found, next(iter(found)))


def _mapping(config: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = config.get(key)
    if not isinstance(value, Mapping):
        raise _refusal(key, value, "a mapping")
    return value


def _names(config: Mapping[str, Any], key: str) -> tuple[str, ...] | None:
    value = config.get(key)
    if value is None:
        return None
    if not isinstance(value, list) or not all(isinstance(name, str) for name in value):
        raise _refusal(key, value, "a list of names")
    for name in value:
        try:
            re.compile(name.removeprefix("re:"))
        except re.error as error:
            raise CheckpointError(
                f"config.json: quantization_config: {key}: {name!r} is no regular expression: {error}"
            ) from error
    return tuple(value)


def _group_size(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or not (value == -1 or value > 0):
        raise _refusal(key, value, "-1 or a positive number")
    return value


def _one_of(config: Mapping[str, Any], key: str, allowed: tuple[Any, ...], default: Any = _MISSING) -> Any:
    value = config.get(key, default)
    # Compared with their types, because 1 == True.
    if not any(type(value) is type(choice) and value == choice for choice in allowed):
        raise _refusal(key, None if value is _MISSING else value, " or ".join(map(str, allowed)))
    return value


def _refusal(key: str, value: object, expected: str) -> CheckpointError:
    return CheckpointError(f"config.json: quantization_config: {key}: {value!r} is not read by hyocr, only {expected}")
