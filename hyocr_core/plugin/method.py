"""One loaded quantization method: its hooks as typed functions that check what they return and name who failed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from hyocr_core.contract.config import MethodConfig, parse_config
from hyocr_core.contract.hookspecs import ENTRY_POINT_GROUP
from hyocr_core.contract.types import Batches, Block, HookCall, Layer, MethodSpec, QuantizedLayer, QuantizedNames, Stats
from hyocr_core.errors import BadInputError, HookError, HyocrError, MethodError, one_line
from hyocr_core.plugin.entry_points import PluginEntry
from hyocr_core.plugin.results import (
    checkpoint_config_problem,
    group_problem,
    inputs_problem,
    packed_problem,
    quantized_problem,
    same_bytes,
    stats_problem,
    verdict_problem,
    versions,
    weight_problem,
)

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
    """A method whose plugin keeps the contract; made by `hyocr_core.plugin.registry.load_method`.

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
        self._call("check_layers", "", verdict_problem, shapes=shapes, config=config)

    def calibrate(self, block: Block, batches: Batches, config: MethodConfig) -> dict[str, Stats]:
        """Return the statistics of every layer of `block`, by name.

        A method that rescales the block must keep its output; any other must leave the block alone.
        """
        if not self._implements("calibrate"):
            return {}
        kept = self._output_kept if self.spec.rescales_block else self._parameters_kept

        def check(result: object) -> str | None:
            return stats_problem(result, block)

        arguments = {"block": block, "batches": batches, "config": config}
        return dict(self._call("calibrate", block.name, check, kept(block, batches), **arguments))

    def quantize_layer(self, layer: Layer, stats: Stats | None, config: MethodConfig) -> QuantizedLayer:
        """Quantize one weight (N, K)."""

        def check(result: object) -> str | None:
            return quantized_problem(result, layer)

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
            return group_problem(result, layers)

        arguments = {"layers": layers, "stats": _of(stats, layers[0]), "config": config}
        names = ", ".join(layer.name for layer in layers)
        kept = self._inputs_kept("quantize_group", layers, None)
        return list(self._call("quantize_group", names, check, kept, **arguments))

    def pack(self, layer: QuantizedLayer, config: MethodConfig) -> dict[str, Tensor]:
        """Return the checkpoint's tensors of one layer under local names (`qweight`, not `layers.0.qweight`)."""
        return dict(self._call("pack", layer.name, packed_problem, layer=layer, config=config))

    def unpack(self, tensors: Mapping[str, Tensor], config: MethodConfig, layer: str = "") -> Tensor:
        """Return the dequantized weight (N, K) of packed tensors; `layer` is the name that errors show."""
        weight: Tensor = self._call("unpack", layer, weight_problem, tensors=dict(tensors), config=config)
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
            return inputs_problem(result, inputs)

        arguments = {"inputs": inputs, "tensors": dict(tensors), "config": config}
        seen: Tensor = self._call("quantize_inputs", layer, check, **arguments)
        return seen

    def checkpoint_config(self, names: QuantizedNames, config: MethodConfig) -> dict[str, Any]:
        """Return the `quantization_config` of config.json."""
        return dict(self._call("checkpoint_config", "", checkpoint_config_problem, names=names, config=config))

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
            raise HookError(f"{self.entry.at(hook, layer)}: {one_line(error, named=True)}") from error

    def _broken(self, hook: str, layer: str, problem: str) -> HookError:
        return HookError(f"{self.entry.at(hook, layer)}: {problem}")

    @contextmanager
    def _parameters_kept(self, block: Block, _batches: Batches) -> Iterator[None]:
        """Refuse a `calibrate` that writes into the block; the copies are one block's weights."""
        copies = {name: parameter.detach().clone() for name, parameter in block.module.named_parameters()}
        yield
        for name, parameter in block.module.named_parameters():
            if not same_bytes(parameter.detach(), copies[name]):
                problem = f"changed {name}, but its method_spec does not say rescales_block"
                raise self._broken("calibrate", block.name, problem)

    @contextmanager
    def _output_kept(self, block: Block, batches: Batches) -> Iterator[None]:
        """Refuse a `calibrate` that changes what the block computes, on the first sample and in fp32."""
        from hyocr_core.kit.smoothing import exact_output

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
        before = versions(stats)
        yield
        for layer, copy in zip(layers, copies, strict=True):
            if not same_bytes(layer.weight, copy):
                raise self._broken(hook, layer.name, "wrote into the weight it was given; work on a copy")
        # A hook that damps its Hessian in place would spoil the next layer.
        if versions(stats) != before:
            raise self._broken(hook, layers[0].name, "wrote into its stats, which other layers share")


def _of(stats: Mapping[str, Stats] | None, layer: Layer) -> Stats | None:
    return stats[layer.name] if stats else None
