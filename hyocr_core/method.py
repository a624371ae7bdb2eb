"""One loaded quantization method: its hooks as typed functions that check what they return and name who failed."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hyocr_core.config import MethodConfig, parse_config
from hyocr_core.entry_points import PluginEntry, brief
from hyocr_core.errors import BadInputError, HookError, HyocrError, MethodError
from hyocr_core.hookspecs import ENTRY_POINT_GROUP
from hyocr_core.types import Batches, Block, HookCall, Layer, MethodSpec, QuantizedLayer, QuantizedNames, Stats

if TYPE_CHECKING:
    import pluggy
    from torch import Tensor


RESCALED_CHANGE = 0.02
"""How much rescaling may change a block's output, relative; rounding folded weights to bf16 takes a few thousandths."""


@dataclass(frozen=True)
class MethodEntry(PluginEntry):
    """One entry point of the group `hyocr.methods`."""

    kind: ClassVar[str] = "method"
    group: ClassVar[str] = ENTRY_POINT_GROUP
    option: ClassVar[str] = "--method"
    packages: ClassVar[str] = "hyocr-plugin-"
    error: ClassVar[type[BadInputError]] = MethodError


@dataclass(frozen=True)
class Method:
    """A method whose plugin keeps the contract; made by `hyocr_core.registry.load_method`.

    Each function calls the hook of the same name. A HyocrError from a hook keeps its class and gains method,
    distribution, hook and layer; any other exception, and a result that breaks the contract, becomes a HookError.

    watch: told of every call of a hook, when its result has passed the checks.
    """

    spec: MethodSpec
    entry: MethodEntry
    hooks: pluggy.HookRelay = field(repr=False, compare=False)
    watch: Callable[[HookCall], None] | None = field(default=None, repr=False, compare=False)

    def config(self, options: Mapping[str, Any]) -> MethodConfig:
        """Validate the method's options; raises ConfigError naming the key and what is allowed."""
        with self._blame():
            return parse_config(self.spec.config_class, options, "options")

    def check_layers(self, shapes: Mapping[str, tuple[int, int]], config: MethodConfig) -> None:
        """Let the method refuse layers, name -> (N, K), before any weight is read."""
        self._call("check_layers", "", _verdict_problem, shapes=shapes, config=config)

    def calibrate(self, block: Block, batches: Batches, config: MethodConfig) -> dict[str, Stats]:
        """Return the statistics of every layer of `block`, by name.

        A method that rescales the block must keep its output; any other must leave the block alone.
        """
        if not self._implements("calibrate"):
            return {}
        kept = self._output_kept if self.spec.rescales_block else self._parameters_kept

        def check(result: object) -> str | None:
            return _stats_problem(result, block)

        arguments = {"block": block, "batches": batches, "config": config}
        return dict(self._call("calibrate", block.name, check, kept(block, batches), **arguments))

    def quantize_layer(self, layer: Layer, stats: Stats | None, config: MethodConfig) -> QuantizedLayer:
        """Quantize one weight (N, K)."""

        def check(result: object) -> str | None:
            return _quantized_problem(result, layer)

        arguments = {"layer": layer, "stats": stats, "config": config}
        kept = self._inputs_kept("quantize_layer", [layer], stats)
        result: QuantizedLayer = self._call("quantize_layer", layer.name, check, kept, **arguments)
        return result

    def quantize_group(
        self, layers: Sequence[Layer], stats: Mapping[str, Stats] | None, config: MethodConfig
    ) -> list[QuantizedLayer]:
        """Quantize layers that share one input, in order; one by one when the plugin has no `quantize_group`.

        stats: what `calibrate` returned for the block, by layer name; the hook gets the first layer's.
        """
        if not self._implements("quantize_group"):
            return [self.quantize_layer(layer, _of(stats, layer), config) for layer in layers]

        def check(result: object) -> str | None:
            return _group_problem(result, layers)

        arguments = {"layers": layers, "stats": _of(stats, layers[0]), "config": config}
        names = ", ".join(layer.name for layer in layers)
        kept = self._inputs_kept("quantize_group", layers, None)
        return list(self._call("quantize_group", names, check, kept, **arguments))

    def pack(self, layer: QuantizedLayer, config: MethodConfig) -> dict[str, Tensor]:
        """Return the checkpoint's tensors of one layer under local names (`qweight`, not `layers.0.qweight`)."""
        return dict(self._call("pack", layer.name, _packed_problem, layer=layer, config=config))

    def unpack(self, tensors: Mapping[str, Tensor], config: MethodConfig, layer: str = "") -> Tensor:
        """Return the dequantized weight (N, K) of packed tensors; `layer` is the name that errors show."""
        weight: Tensor = self._call("unpack", layer, _weight_problem, tensors=dict(tensors), config=config)
        return weight

    @property
    def quantizes_inputs(self) -> bool:
        """Whether the plugin has the hook `quantize_inputs`."""
        return self._implements("quantize_inputs")

    def quantize_inputs(
        self, inputs: Tensor, tensors: Mapping[str, Tensor], config: MethodConfig, layer: str = ""
    ) -> Tensor:
        """Return what a runtime's matmul sees of a layer's inputs; `tensors` are the layer's packed ones."""

        def check(result: object) -> str | None:
            return _inputs_problem(result, inputs)

        arguments = {"inputs": inputs, "tensors": dict(tensors), "config": config}
        seen: Tensor = self._call("quantize_inputs", layer, check, **arguments)
        return seen

    def checkpoint_config(self, names: QuantizedNames, config: MethodConfig) -> dict[str, Any]:
        """Return the `quantization_config` of config.json."""
        return dict(self._call("checkpoint_config", "", _checkpoint_config_problem, names=names, config=config))

    def _implements(self, hook: str) -> bool:
        return bool(getattr(self.hooks, hook).get_hookimpls())

    def _call(
        self,
        hook: str,
        layer: str,
        check: Callable[[object], str | None],
        kept: AbstractContextManager[None] | None = None,
        /,
        **arguments: object,
    ) -> Any:
        """Call a hook and return what `check` finds no problem with; `kept` refuses it when it is left."""
        # A plugin's print must not end up in the JSON that `--json` writes to stdout.
        with kept or nullcontext(), self._blame(hook, layer), redirect_stdout(sys.stderr):
            start = time.perf_counter()
            result = getattr(self.hooks, hook)(**arguments)
            seconds = time.perf_counter() - start
        problem = check(result)
        if problem:
            raise self._broken(hook, layer, problem)
        if self.watch is not None:
            self.watch(HookCall(hook, layer, arguments, result, seconds))
        return result

    @contextmanager
    def _blame(self, hook: str = "", layer: str = "") -> Iterator[None]:
        """Say in any error who failed; KeyboardInterrupt passes, a plugin's SystemExit does not."""
        try:
            yield
        except HyocrError as error:
            error.args = (f"{self.entry.at(hook, layer)}: {error}",)
            raise
        except (Exception, SystemExit) as error:
            raise HookError(f"{self.entry.at(hook, layer)}: {brief(error)}") from error

    def _broken(self, hook: str, layer: str, problem: str) -> HookError:
        return HookError(f"{self.entry.at(hook, layer)}: {problem}")

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
    def _inputs_kept(self, hook: str, layers: Sequence[Layer], stats: Stats | None) -> Iterator[None]:
        """Refuse a hook that writes into the weights it was given, or into stats that other layers share.

        Weights are compared with copies, exactly: a tensor's version counter misses writes through `.data` and NumPy,
        and a checksum can miss a permutation. The copies are one group's weights and cost about a second per billion.
        """
        copies = [layer.weight.clone() for layer in layers]
        before = _versions(stats)
        yield
        for layer, copy in zip(layers, copies, strict=True):
            if not _same_bytes(layer.weight, copy):
                raise self._broken(hook, layer.name, "wrote into the weight it was given; work on a copy")
        # A hook that damps its Hessian in place would spoil the next layer.
        if _versions(stats) != before:
            raise self._broken(hook, layers[0].name, "wrote into its stats, which other layers share")


def _of(stats: Mapping[str, Stats] | None, layer: Layer) -> Stats | None:
    return stats[layer.name] if stats else None


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


def _verdict_problem(value: object) -> str | None:
    """Why `value` is no answer of `check_layers`."""
    return None if value is None else "returned a value; a layer is refused by raising ConfigError"


def _tensors_problem(value: object) -> str | None:
    """Why `value` is no dict of tensors by name."""
    import torch

    if not isinstance(value, Mapping):
        return f"must return a dict of tensors, not {_kind(value)}"
    for name, tensor in value.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            return f"must return a dict of tensors, but {name!r} is {_kind(tensor)}"
    return None


def _packed_problem(tensors: Any) -> str | None:
    """Why `tensors` are not the checkpoint's tensors of a layer under local names."""
    if problem := _tensors_problem(tensors):
        return problem
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


def _group_problem(value: object, layers: Sequence[Layer]) -> str | None:
    """Why `value` is not a list of the QuantizedLayers of `layers`."""
    if not isinstance(value, list | tuple) or len(value) != len(layers):
        return f"must return a list of {len(layers)}, not {_kind(value)}"
    found = zip(layers, value, strict=True)
    return next((f"{layer.name}: {text}" for layer, item in found if (text := _quantized_problem(item, layer))), None)


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
