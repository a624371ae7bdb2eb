"""What hooks return, held against the contract: each check says in one phrase what is wrong, or None."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hyocr_core.contract.types import Block, Layer, LayerSpec, Model, Prepared, QuantizedLayer, Stat

if TYPE_CHECKING:
    from torch import Tensor


READ_ALIKE = 0.01
"""How far what a runtime reads may be from what the method meant, as a share of the weight."""


def _kind(value: object) -> str:
    if value is None:
        return "nothing (None)"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a value of type {type(value).__name__}"


def same_bytes(left: Tensor, right: Tensor) -> bool:
    import torch

    return torch.equal(_as_bytes(left), _as_bytes(right))


def first_changed(pairs: Sequence[tuple[Tensor, Tensor]]) -> int | None:
    """Which of these pairs of tensors is the first whose bytes differ; the host waits for a device once."""
    import torch

    if not pairs or pairs[0][0].device.type == "cpu":
        return next((index for index, pair in enumerate(pairs) if not same_bytes(*pair)), None)
    resized = [index for index, (left, right) in enumerate(pairs) if left.nbytes != right.nbytes]
    if resized:
        return resized[0]
    differ = torch.stack([(_as_bytes(left) != _as_bytes(right)).any() for left, right in pairs]).tolist()
    return differ.index(True) if True in differ else None


def _as_bytes(tensor: Tensor) -> Tensor:
    """NaN does not equal itself, its bytes do."""
    import torch

    return tensor.contiguous().reshape(-1).view(torch.uint8)


def nothing_problem(value: object) -> str | None:
    """Why `value` is no answer of a hook that returns nothing."""
    return None if value is None else f"must return nothing, not {_kind(value)}; what is wrong is raised as ConfigError"


def _tensors_problem(value: object) -> str | None:
    """Why `value` is no dict of tensors by name."""
    import torch

    if not isinstance(value, Mapping):
        return f"must return a dict of tensors, not {_kind(value)}"
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            return f"must return a dict of tensors, but {name!r} is {_kind(tensor)}"
    return None


def packed_problem(tensors: Any) -> str | None:
    """Why `tensors` are not the checkpoint's tensors of a layer under local names."""
    from hyocr_core.kit.checks import first_endless

    if problem := _tensors_problem(tensors):
        return problem
    if not tensors:
        return "returned no tensors"
    wrong = [name for name in tensors if not name.isidentifier()]
    if wrong:
        return f"must use local names such as 'qweight', not {wrong[0]!r}"
    if "bias" in tensors:
        return "must leave 'bias' to the layer: biases are carried over"
    endless = first_endless(list(tensors.values()))
    return None if endless is None else f"returned NaN or infinite values in {list(tensors)[endless]!r}"


def emptied_problem(tensors: Mapping[str, Tensor], weight: Tensor) -> str | None:
    """Why packed tensors cannot hold `weight`, whatever `unpack` makes of them: there is nothing in them."""
    import torch

    written = any(tensor.contiguous().reshape(-1).view(torch.uint8).any() for tensor in tensors.values())
    return None if written or not weight.any() else "returned nothing but zeros, the weight is not zero"


def inputs_problem(value: object, inputs: Tensor) -> str | None:
    """Why `value` cannot take the place of `inputs`."""
    import torch

    if not isinstance(value, torch.Tensor):
        return f"must return a tensor, not {_kind(value)}"
    if value.shape != inputs.shape or value.dtype != inputs.dtype:
        return f"returned {value.dtype} {tuple(value.shape)} for inputs of {inputs.dtype} {tuple(inputs.shape)}"
    return None


def bits_differ(left: Tensor, right: Tensor) -> str:
    """How two tensors differ, bit for bit; empty when they do not."""
    import torch

    if left.shape != right.shape or left.dtype != right.dtype:
        return f"{left.dtype} {tuple(left.shape)} instead of {right.dtype} {tuple(right.shape)}"
    if same_bytes(left.detach(), right.detach()):
        return ""
    size = max(1, left.element_size())
    first, second = (
        tensor.detach().contiguous().reshape(-1).view(torch.uint8).view(-1, size) for tensor in (left, right)
    )
    places = (first != second).any(1).nonzero().flatten().tolist()
    where = [int(index) for index in torch.unravel_index(torch.tensor(places[0]), left.shape)]
    now, then = (tensor.reshape(-1)[places[0]].item() for tensor in (left, right))
    return f"{len(places)} of {left.numel()} values differ, the first at {where}: {now:g} instead of {then:g}"


def unpacked_problem(found: Tensor, due: Tensor) -> str:
    """How an unpacked weight differs from the one that was packed, bit for bit; empty when it does not."""
    # Adding 0 makes -0 to 0: integer codes know only one of them, and no output depends on it.
    return bits_differ(found + 0, due + 0)


def read_problem(found: Tensor, due: Tensor) -> str | None:
    """Why a runtime would not read the weight `due`; it may round otherwise than the method did."""
    import torch

    lost = torch.linalg.vector_norm(found.float() - due.float())
    # Not `>`: NaN is larger than nothing.
    if lost <= READ_ALIKE * torch.linalg.vector_norm(due.float()):
        return None
    return "does not hold the weight: the format that checkpoint_config names reads another one in it"


def weight_problem(value: object, layer: LayerSpec | None = None) -> str | None:
    """Why `value` is no finite weight (N, K), of the layer's shape if that is given."""
    import torch

    from hyocr_core.kit.checks import is_finite

    if not isinstance(value, torch.Tensor):
        return f"must return a tensor, not {_kind(value)}"
    if value.ndim != 2 or not value.is_floating_point():
        return f"must return a floating-point weight (N, K), not {value.dtype} {tuple(value.shape)}"
    if layer is not None and tuple(value.shape) != layer.shape:
        return f"returned a weight of shape {list(value.shape)}, the layer has {list(layer.shape)}"
    return None if is_finite(value) else "returned NaN or infinite values"


def prepared_problem(value: object, model: Model) -> str | None:
    """Why `value` is nothing that `prepare` may decide."""
    if value is None:
        return None
    if not isinstance(value, Prepared):
        return f"must return Prepared or None, not {_kind(value)}"
    if problem := _tensors_problem(value.tensors):
        return problem
    for name, tensor in value.tensors.items():
        if name not in model.tensors:
            return f"replaces {name!r}, which is no tensor of the checkpoint"
        if model.tensors[name] != (tuple(tensor.shape), tensor.dtype):
            shape, dtype = model.tensors[name]
            return f"replaces {name} by {tensor.dtype} {tuple(tensor.shape)}, it is {dtype} {shape}"
    return _json_problem(dict(value.config)) or _json_problem(dict(value.overrides))


def stats_problem(value: object, block: Block, *, plain: bool = False) -> str | None:
    """Why `value` is not one dict for each layer of `block`; plain: of tensors."""
    if not isinstance(value, Mapping):
        return f"must return a dict of stats by layer name, not {_kind(value)}"
    missing = [name for name in block.layers if name not in value]
    unknown = [name for name in value if name not in block.layers]
    if missing or unknown:
        return f"returned no stats for {missing[0]}" if missing else f"returned stats for {unknown[0]!r}, no layer"
    check = _tensors_problem if plain else _stats_kind_problem
    return next((f"{name}: {problem}" for name in value if (problem := check(value[name]))), None)


def _stats_kind_problem(value: object) -> str | None:
    return None if isinstance(value, Mapping) else f"must be a dict of Stat, not {_kind(value)}"


def collected_problem(found: Mapping[str, Mapping[str, object]]) -> str | None:
    """Why statistics cannot be merged with those of other samples; one that does not say how is refused."""
    import torch

    for layer, stats in found.items():
        for name, stat in stats.items():
            if not isinstance(stat, Stat):
                return (
                    f"{layer}: {name!r} is {_kind(stat)}, which does not say how it merges with that of other samples; "
                    'return Stat(tensor, "sum") or Stat(tensor, "max")'
                )
            if stat.merge not in ("sum", "max") or not isinstance(stat.value, torch.Tensor):
                return f"{layer}: {name!r} must be a tensor that merges by sum or max, not {stat.merge!r}"
    return None


def group_problem(value: object, layers: Sequence[Layer]) -> str | None:
    """Why `value` is not a list of the QuantizedLayers of `layers`."""
    if not isinstance(value, list | tuple) or len(value) != len(layers):
        return f"must return a list of {len(layers)}, not {_kind(value)}"
    found = zip(layers, value, strict=True)
    return next((f"{layer.name}: {text}" for layer, item in found if (text := quantized_problem(item, layer))), None)


def quantized_problem(value: object, layer: Layer) -> str | None:
    """Why `value` is not the QuantizedLayer of `layer`."""
    if not isinstance(value, QuantizedLayer):
        return f"must return a QuantizedLayer, not {_kind(value)}"
    if value.name != layer.name:
        return f"returned a result named {value.name!r}"
    if problem := _tensors_problem(value.tensors) or weight_problem(value.dequantized):
        return problem
    found, due = value.dequantized, layer.weight
    if found.shape != due.shape or found.dtype != due.dtype:
        return f"dequantized is {found.dtype} {tuple(found.shape)}, the weight {due.dtype} {tuple(due.shape)}"
    if not found.any() and due.any():
        return "dequantized is all zeros, the weight is not"
    wrong = [name for name, number in value.metrics.items() if not isinstance(number, int | float)]
    if wrong:
        return f"metric {wrong[0]!r} is {_kind(value.metrics[wrong[0]])}, not a float"
    endless = [name for name, number in value.metrics.items() if not math.isfinite(number)]
    return f"metric {endless[0]!r} is {value.metrics[endless[0]]}, not a finite number" if endless else None


def checkpoint_config_problem(value: object) -> str | None:
    """Why `value` cannot be the `quantization_config` of config.json."""
    if not isinstance(value, dict):
        return f"must return a dict, not {_kind(value)}"
    if not isinstance(value.get("quant_method"), str):
        return "must return a dict with 'quant_method'; runtimes choose their kernels by it"
    return _json_problem(value)


def _json_problem(value: object) -> str | None:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"returned what JSON cannot hold: {error}"
    return None
