"""One loaded quantization method: its hooks as typed functions that check what they return and name who failed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hyocr_core.config import MethodConfig, parse_config
from hyocr_core.errors import HookError, HyocrError
from hyocr_core.types import Batches, Block, Layer, MethodSpec, QuantizedLayer, QuantizedNames, Stats

if TYPE_CHECKING:
    import pluggy
    from torch import Tensor


RESCALED_CHANGE = 0.02
"""How much rescaling may change a block's output, relative; rounding folded weights to bf16 takes a few thousandths."""


@dataclass(frozen=True)
class MethodEntry:
    """One entry point of the group `hyocr.methods`, read from the metadata of a distribution; nothing is imported.

    value: what the entry point names, `module` or `module:object`.
    conflict: another installed distribution offers the same name.
    """

    name: str
    distribution: str
    version: str
    summary: str
    value: str
    conflict: bool = False

    @property
    def selector(self) -> str:
        """What picks this entry and no other: `distribution:name`."""
        return f"{self.distribution}:{self.name}"

    @property
    def source(self) -> str:
        """Distribution and version, as error messages show them."""
        return f"{self.distribution} {self.version}"

    def __str__(self) -> str:
        return f"method {self.name} ({self.source})"


@dataclass(frozen=True)
class Method:
    """A method whose plugin keeps the contract; made by `hyocr_core.registry.load_method`.

    Each function calls the hook of the same name. A HyocrError from a hook keeps its class and gains method,
    distribution, hook and layer; any other exception, and a result that breaks the contract, becomes a HookError.
    """

    spec: MethodSpec
    entry: MethodEntry
    hooks: pluggy.HookRelay = field(repr=False, compare=False)

    def config(self, options: Mapping[str, Any]) -> MethodConfig:
        """Validate the method's options; raises ConfigError naming the key and what is allowed."""
        with self._blame():
            return parse_config(self.spec.config_class, options, "options")

    def check_layers(self, shapes: Mapping[str, tuple[int, int]], config: MethodConfig) -> None:
        """Let the method refuse layers, name -> (N, K), before any weight is read."""
        if self._call("check_layers", "", shapes=shapes, config=config) is not None:
            raise self._broken("check_layers", "", "returned a value; a layer is refused by raising ConfigError")

    def calibrate(self, block: Block, batches: Batches, config: MethodConfig) -> dict[str, Stats]:
        """Return the statistics of every layer of `block`, by name.

        A method that rescales the block must keep its output; any other must leave the block alone.
        """
        if not self._implements("calibrate"):
            return {}
        kept = self._output_kept if self.spec.rescales_block else self._parameters_kept
        with kept(block, batches):
            result = self._call("calibrate", block.name, block=block, batches=batches, config=config)
        problem = _stats_problem(result, block)
        if problem:
            raise self._broken("calibrate", block.name, problem)
        return dict(result)

    def quantize_layer(self, layer: Layer, stats: Stats | None, config: MethodConfig) -> QuantizedLayer:
        """Quantize one weight (N, K)."""
        with self._weights_kept("quantize_layer", [layer]):
            result = self._call("quantize_layer", layer.name, layer=layer, stats=stats, config=config)
        return self._checked("quantize_layer", layer, result)

    def quantize_group(
        self, layers: Sequence[Layer], stats: Mapping[str, Stats] | None, config: MethodConfig
    ) -> list[QuantizedLayer]:
        """Quantize layers that share one input, in order; one by one when the plugin has no `quantize_group`.

        stats: what `calibrate` returned for the block, by layer name; the hook gets the first layer's.
        """
        if not self._implements("quantize_group"):
            return [self._quantize_sharing(layer, _of(stats, layer), config) for layer in layers]
        shared = _of(stats, layers[0])
        names = ", ".join(layer.name for layer in layers)
        with self._weights_kept("quantize_group", layers):
            result = self._call("quantize_group", names, layers=layers, stats=shared, config=config)
        if not isinstance(result, list | tuple) or len(result) != len(layers):
            raise self._broken("quantize_group", names, f"must return a list of {len(layers)}, not {_kind(result)}")
        return [self._checked("quantize_group", layer, item) for layer, item in zip(layers, result, strict=True)]

    def pack(self, layer: QuantizedLayer, config: MethodConfig) -> dict[str, Tensor]:
        """Return the checkpoint's tensors of one layer under local names (`qweight`, not `layers.0.qweight`)."""
        result = self._call("pack", layer.name, layer=layer, config=config)
        problem = _tensors_problem(result) or _names_problem(result)
        if problem:
            raise self._broken("pack", layer.name, problem)
        return dict(result)

    def unpack(self, tensors: Mapping[str, Tensor], config: MethodConfig, layer: str = "") -> Tensor:
        """Return the dequantized weight (N, K) of packed tensors; `layer` is the name that errors show."""
        result = self._call("unpack", layer, tensors=dict(tensors), config=config)
        problem = _weight_problem(result)
        if problem:
            raise self._broken("unpack", layer, problem)
        return result  # type: ignore[no-any-return]

    @property
    def quantizes_inputs(self) -> bool:
        """Whether the plugin has the hook `quantize_inputs`."""
        return self._implements("quantize_inputs")

    def quantize_inputs(
        self, inputs: Tensor, tensors: Mapping[str, Tensor], config: MethodConfig, layer: str = ""
    ) -> Tensor:
        """Return what a runtime's matmul sees of a layer's inputs; `tensors` are the layer's packed ones."""
        result = self._call("quantize_inputs", layer, inputs=inputs, tensors=dict(tensors), config=config)
        problem = _inputs_problem(result, inputs)
        if problem:
            raise self._broken("quantize_inputs", layer, problem)
        return result  # type: ignore[no-any-return]

    def checkpoint_config(self, names: QuantizedNames, config: MethodConfig) -> dict[str, Any]:
        """Return the `quantization_config` of config.json."""
        result = self._call("checkpoint_config", "", names=names, config=config)
        problem = _checkpoint_config_problem(result)
        if problem:
            raise self._broken("checkpoint_config", "", problem)
        return dict(result)

    def _implements(self, hook: str) -> bool:
        return bool(getattr(self.hooks, hook).get_hookimpls())

    def _call(self, hook: str, layer: str, /, **arguments: object) -> Any:
        # A plugin's print must not end up in the JSON that `--json` writes to stdout.
        with self._blame(hook, layer), redirect_stdout(sys.stderr):
            return getattr(self.hooks, hook)(**arguments)

    @contextmanager
    def _blame(self, hook: str = "", layer: str = "") -> Iterator[None]:
        """Say in any error who failed; KeyboardInterrupt passes, a plugin's SystemExit does not."""
        try:
            yield
        except HyocrError as error:
            error.args = (f"{self._where(hook, layer)}: {error}",)
            raise
        except (Exception, SystemExit) as error:
            raise HookError(f"{self._where(hook, layer)}: {brief(error)}") from error

    def _where(self, hook: str, layer: str) -> str:
        return ", ".join(filter(None, (str(self.entry), hook and f"hook {hook}", layer)))

    def _broken(self, hook: str, layer: str, problem: str) -> HookError:
        return HookError(f"{self._where(hook, layer)}: {problem}")

    @contextmanager
    def _parameters_kept(self, block: Block, _batches: Batches) -> Iterator[None]:
        """Refuse a `calibrate` that writes into the block; the copies are one block's weights."""
        copies = {name: parameter.detach().clone() for name, parameter in block.module.named_parameters()}
        yield
        for name, parameter in block.module.named_parameters():
            if not _same_bytes(parameter.detach(), copies[name]):
                problem = f"changed {name}, but its method_spec does not say rescales_block"
                raise self._broken("calibrate", block.name, problem)

    @contextmanager
    def _output_kept(self, block: Block, batches: Batches) -> Iterator[None]:
        """Refuse a `calibrate` that changes what the block computes, on the first sample and in fp32."""
        from hyocr_core.smoothing import exact_output

        batch = next(iter(batches))
        before = exact_output(block, batch)
        yield
        change = ((exact_output(block, batch) - before).norm() / before.norm()).item()
        # Written so that NaN is refused too.
        if not change <= RESCALED_CHANGE:
            problem = f"changed the block's output by {change:.1%}; rescaling must preserve it"
            raise self._broken("calibrate", block.name, problem)

    @contextmanager
    def _weights_kept(self, hook: str, layers: Sequence[Layer]) -> Iterator[None]:
        """Refuse a hook that writes into the weights it was given.

        Compared with copies, exactly: a tensor's version counter misses writes through `.data` and NumPy, and a
        checksum can miss a permutation. The copies are one group's weights and cost about a second per billion.
        """
        copies = [layer.weight.clone() for layer in layers]
        yield
        for layer, copy in zip(layers, copies, strict=True):
            if not _same_bytes(layer.weight, copy):
                raise self._broken(hook, layer.name, "wrote into the weight it was given; work on a copy")

    def _quantize_sharing(self, layer: Layer, stats: Stats | None, config: MethodConfig) -> QuantizedLayer:
        # The layers of a group share one Stats: a hook that damps its Hessian in place would spoil the next layer.
        before = _versions(stats)
        result = self.quantize_layer(layer, stats, config)
        if _versions(stats) != before:
            raise self._broken("quantize_layer", layer.name, "wrote into its stats, which other layers share")
        return result

    def _checked(self, hook: str, layer: Layer, result: object) -> QuantizedLayer:
        problem = _quantized_problem(result, layer)
        if problem:
            raise self._broken(hook, layer.name, problem)
        return result  # type: ignore[return-value]


def _of(stats: Mapping[str, Stats] | None, layer: Layer) -> Stats | None:
    return stats[layer.name] if stats else None


def brief(error: BaseException) -> str:
    """Class and first line of an exception."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def _kind(value: object) -> str:
    if value is None:
        return "nothing (None)"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a value of type {type(value).__name__}"


def _same_bytes(left: Tensor, right: Tensor) -> bool:
    import torch

    # As bytes, because NaN does not equal itself.
    return torch.equal(left.contiguous().view(torch.uint8), right.contiguous().view(torch.uint8))


def _versions(stats: Stats | None) -> list[int]:
    return [tensor._version for tensor in (stats or {}).values() if not tensor.is_inference()]


def _tensors_problem(value: object) -> str | None:
    """Why `value` is no dict of tensors by name."""
    import torch

    if not isinstance(value, Mapping):
        return f"must return a dict of tensors, not {_kind(value)}"
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            return f"must return a dict of tensors, but {name!r} is {_kind(tensor)}"
    return None


def _names_problem(tensors: Mapping[str, Tensor]) -> str | None:
    """Why the names of packed tensors are not local ones."""
    if not tensors:
        return "returned no tensors"
    wrong = [name for name in tensors if not name.isidentifier()]
    if wrong:
        return f"must use local names such as 'qweight', not {wrong[0]!r}"
    return "must leave 'bias' to the layer: biases are carried over" if "bias" in tensors else None


def _inputs_problem(value: object, inputs: Tensor) -> str | None:
    """Why `value` cannot take the place of `inputs`."""
    import torch

    if not isinstance(value, torch.Tensor):
        return f"must return a tensor, not {_kind(value)}"
    if value.shape != inputs.shape or value.dtype != inputs.dtype:
        return f"returned {value.dtype} {tuple(value.shape)} for inputs of {inputs.dtype} {tuple(inputs.shape)}"
    return None


def _weight_problem(value: object) -> str | None:
    """Why `value` is no finite weight (N, K)."""
    import torch

    from hyocr_core.numerics import is_finite

    if not isinstance(value, torch.Tensor):
        return f"must return a tensor, not {_kind(value)}"
    if value.ndim != 2 or not value.is_floating_point():
        return f"must return a floating-point weight (N, K), not {value.dtype} {tuple(value.shape)}"
    return None if is_finite(value) else "returned NaN or infinite values"


def _stats_problem(value: object, block: Block) -> str | None:
    """Why `value` is not one Stats for each layer of `block`."""
    if not isinstance(value, Mapping):
        return f"must return a dict of stats by layer name, not {_kind(value)}"
    missing = [name for name in block.layers if name not in value]
    unknown = [name for name in value if name not in block.layers]
    if missing or unknown:
        return f"returned no stats for {missing[0]}" if missing else f"returned stats for {unknown[0]!r}, no layer"
    return next((f"{name}: {problem}" for name in value if (problem := _tensors_problem(value[name]))), None)


def _quantized_problem(value: object, layer: Layer) -> str | None:
    """Why `value` is not the QuantizedLayer of `layer`."""
    if not isinstance(value, QuantizedLayer):
        return f"must return a QuantizedLayer, not {_kind(value)}"
    if value.name != layer.name:
        return f"returned a result named {value.name!r}"
    if problem := _tensors_problem(value.tensors) or _weight_problem(value.dequantized):
        return problem
    found, due = value.dequantized, layer.weight
    if found.shape != due.shape or found.dtype != due.dtype:
        return f"dequantized is {found.dtype} {tuple(found.shape)}, the weight {due.dtype} {tuple(due.shape)}"
    wrong = [name for name, number in value.metrics.items() if not isinstance(number, int | float)]
    return f"metric {wrong[0]!r} is {_kind(value.metrics[wrong[0]])}, not a float" if wrong else None


def _checkpoint_config_problem(value: object) -> str | None:
    """Why `value` cannot be the `quantization_config` of config.json."""
    if not isinstance(value, dict):
        return f"must return a dict, not {_kind(value)}"
    if not isinstance(value.get("quant_method"), str):
        return "must return a dict with 'quant_method'; runtimes choose their kernels by it"
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError) as error:
        return f"returned what JSON cannot hold: {error}"
    return None
