"""One loaded quantization method: its hooks as typed functions that check what they return and name who failed."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from hyocr_core.contract.config import Fallback, MethodConfig, parse_config
from hyocr_core.contract.hookspecs import ENTRY_POINT_GROUP
from hyocr_core.contract.types import (
    Batches,
    Block,
    Collected,
    HookCall,
    Layer,
    LayerSpec,
    MethodSpec,
    Model,
    Prepared,
    QuantizedLayer,
    QuantizedNames,
    Stats,
)
from hyocr_core.errors import BadInputError, HookError, HyocrError, MethodError, one_line
from hyocr_core.plugin import guards
from hyocr_core.plugin.entry_points import PluginEntry
from hyocr_core.plugin.results import (
    checkpoint_config_problem,
    collected_problem,
    emptied_problem,
    group_problem,
    inputs_problem,
    nothing_problem,
    packed_problem,
    prepared_problem,
    quantized_problem,
    read_problem,
    stats_problem,
    unpacked_problem,
    weight_problem,
)

if TYPE_CHECKING:
    import pluggy
    from torch import Tensor

    from hyocr_core.formats import Format


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

    def implements(self, hook: str) -> bool:
        """Whether the plugin has this hook."""
        return bool(getattr(self.hooks, hook).get_hookimpls())

    def takes(self, hook: str, argument: str) -> bool:
        """Whether the plugin's hook looks at this argument."""
        return any(argument in each.argnames for each in getattr(self.hooks, hook).get_hookimpls())

    def config(self, options: Mapping[str, Any], where: str = "options") -> MethodConfig:
        """Validate the method's options; raises ConfigError naming `where`, the key and what is allowed."""
        with self._blame():
            return parse_config(self.spec.config_class, options, where)

    def fallback(self, config: MethodConfig, shape: tuple[int, int]) -> Fallback | None:
        """What becomes of a linear of `shape` (N, K) that these options cannot hold."""
        with self._blame():
            return config.fallback(shape)

    def check_layers(self, shapes: Mapping[str, tuple[int, int]], config: MethodConfig) -> None:
        """Let the method refuse layers, name -> (N, K), before any weight is read."""
        self._call("check_layers", "", nothing_problem, shapes=shapes, config=config)

    def prepare(self, model: Model, batches: Batches, config: MethodConfig, seed: int) -> Prepared:
        """Let the method decide on the whole model; what has no hook for that decides nothing."""
        if not self.implements("prepare"):
            return Prepared()

        def check(result: object) -> str | None:
            return prepared_problem(result, model)

        arguments = {"model": model, "batches": batches, "config": config, "seed": seed}
        return self._call("prepare", "", check, **arguments) or Prepared()

    def calibrate(self, block: Block, batches: Batches, config: MethodConfig) -> dict[str, Collected]:
        """Return what the samples say of every layer of `block`, by name, still to be merged and settled."""
        if not self.implements("calibrate"):
            return {}

        def check(result: object) -> str | None:
            return stats_problem(result, block)

        arguments = {"block": block, "batches": batches, "config": config}
        kept = guards.parameters_kept(block, "calibrate only gathers, and settle may rescale")
        found = dict(self._call("calibrate", _name_of(block), check, kept, **arguments))
        if problem := collected_problem(found):
            raise MethodError(f"{self.entry.at('calibrate', _name_of(block))}: {problem}")
        return found

    def settle(
        self, block: Block, batches: Batches, stats: dict[str, Stats], config: MethodConfig, seed: int
    ) -> dict[str, Stats]:
        """Return what `quantize_group` needs, by layer name, of merged statistics.

        A method that rescales the block must keep its output; any other must leave the block alone.
        """
        if not self.implements("settle"):
            return stats

        def check(result: object) -> str | None:
            return stats_problem(result, block, plain=True)

        arguments = {"block": block, "batches": batches, "stats": stats, "config": config, "seed": seed}
        if self.spec.rescales_block:
            kept = guards.output_kept(block, batches)
        else:
            kept = guards.parameters_kept(block, "its method_spec does not say rescales_block")
        return dict(self._call("settle", _name_of(block), check, kept, **arguments))

    def quantize_layer(self, layer: Layer, stats: Stats | None, config: MethodConfig, seed: int = 0) -> QuantizedLayer:
        """Quantize one weight (N, K)."""

        def check(result: object) -> str | None:
            return quantized_problem(result, layer)

        arguments = {"layer": layer, "stats": stats, "config": config, "seed": seed}
        kept = guards.inputs_kept([layer], stats)
        result: QuantizedLayer = self._call("quantize_layer", layer.name, check, kept, **arguments)
        return result

    def quantize_group(
        self, layers: Sequence[Layer], stats: Mapping[str, Stats] | None, config: MethodConfig, seed: int = 0
    ) -> list[QuantizedLayer]:
        """Quantize layers that share one input, in order; one by one when the plugin has no `quantize_group`.

        stats: what is known of the block's layers, by name; the hook gets the first layer's.
        """
        if not self.implements("quantize_group"):
            return [self.quantize_layer(layer, _of(stats, layer), config, seed) for layer in layers]

        def check(result: object) -> str | None:
            return group_problem(result, layers)

        arguments = {"layers": layers, "stats": _of(stats, layers[0]), "config": config, "seed": seed}
        names = ", ".join(layer.name for layer in layers)
        kept = guards.inputs_kept(layers, None)
        return list(self._call("quantize_group", names, check, kept, **arguments))

    def pack(self, layer: QuantizedLayer, config: MethodConfig) -> dict[str, Tensor]:
        """Return the checkpoint's tensors of one layer under local names (`qweight`, not `layers.0.qweight`)."""
        return dict(self._call("pack", layer.name, packed_problem, layer=layer, config=config))

    def unpack(self, tensors: Mapping[str, Tensor], layer: LayerSpec, config: MethodConfig) -> Tensor:
        """Return the dequantized weight (N, K) of packed tensors."""

        def check(result: object) -> str | None:
            return weight_problem(result, layer)

        weight: Tensor = self._call("unpack", layer.name, check, tensors=dict(tensors), layer=layer, config=config)
        return weight

    def pack_exactly(self, layer: QuantizedLayer, config: MethodConfig) -> dict[str, Tensor]:
        """`pack`, and hold what `unpack` makes of it against the layer's `dequantized`, bit for bit."""
        packed = self.pack(layer, config)
        if problem := emptied_problem(packed, layer.dequantized):
            raise self._broken("pack", layer.name, problem)
        outputs, inputs = layer.dequantized.shape
        spec = LayerSpec(layer.name, (outputs, inputs), layer.dequantized.dtype)
        if problem := unpacked_problem(self.unpack(packed, spec, config), layer.dequantized):
            raise self._broken("pack", layer.name, f"lost something: unpack does not give the weight back: {problem}")
        return packed

    def check_stored(self, layer: QuantizedLayer, packed: Mapping[str, Tensor], written: Format) -> None:
        """Hold what a runtime reads in packed tensors, by the format that config.json will name, against the weight.

        Raises HookError when it differs, whatever the method's own `unpack` says. Tensors of another layout than the
        format's are left to `hyocr verify`.
        """
        outputs, inputs = layer.dequantized.shape
        stored = {local: (tuple(tensor.shape), tensor.dtype) for local, tensor in packed.items()}
        if not any(written.problems(stored, (outputs, inputs))):
            found = written.dequantize(packed, (outputs, inputs), layer.dequantized.dtype)
            if problem := read_problem(found, layer.dequantized):
                raise self._broken("pack", layer.name, problem)

    def quantize_inputs(
        self, inputs: Tensor, tensors: Mapping[str, Tensor], config: MethodConfig, layer: str = ""
    ) -> Tensor:
        """Return what a runtime's matmul sees of a layer's inputs; `tensors` are the layer's packed ones."""

        def check(result: object) -> str | None:
            return inputs_problem(result, inputs)

        arguments = {"inputs": inputs, "tensors": dict(tensors), "config": config}
        seen: Tensor = self._call("quantize_inputs", layer, check, **arguments)
        return seen

    def checkpoint_config(
        self, names: QuantizedNames, layers: Mapping[str, MethodConfig], config: MethodConfig
    ) -> dict[str, Any]:
        """Return the `quantization_config` of config.json; layers: in-memory name -> the options that hold for it."""
        arguments = {"names": names, "layers": layers, "config": config}
        return dict(self._call("checkpoint_config", "", checkpoint_config_problem, **arguments))

    def original_basis(self, layer: LayerSpec, weight: Tensor, config: MethodConfig) -> Tensor:
        """Turn a dequantized weight (N, K) back into the basis of the original checkpoint."""
        if not self.implements("original_basis"):
            return weight

        def check(result: object) -> str | None:
            return weight_problem(result, layer)

        turned: Tensor = self._call("original_basis", layer.name, check, layer=layer, weight=weight, config=config)
        return turned

    def export(self, checkpoint: Path, folder: Path, config: MethodConfig) -> None:
        """Let the method write files of its own, into the empty `folder`."""
        if self.implements("export"):
            kept = guards.written_inside(folder, checkpoint, checkpoint.parent)
            self._call("export", "", nothing_problem, kept, checkpoint=checkpoint, folder=folder, config=config)

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
        try:
            # A plugin's print must not end up in the JSON that `--json` writes to stdout.
            with kept or nullcontext(), self._blame(hook, layer), redirect_stdout(sys.stderr):
                start = time.perf_counter()
                result = getattr(self.hooks, hook)(**arguments)
                seconds = time.perf_counter() - start
        except guards.PromiseBroken as broken:
            raise broken.kind(f"{self.entry.at(hook, broken.layer or layer)}: {broken}") from None
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
        except guards.PromiseBroken:
            raise
        except HyocrError as error:
            error.args = (f"{self.entry.at(hook, layer)}: {error}",)
            raise
        except (Exception, SystemExit) as error:
            raise HookError(f"{self.entry.at(hook, layer)}: {one_line(error, named=True)}") from error

    def _broken(self, hook: str, layer: str, problem: str) -> HookError:
        return HookError(f"{self.entry.at(hook, layer)}: {problem}")


def _of(stats: Mapping[str, Stats] | None, layer: Layer) -> Stats | None:
    return stats[layer.name] if stats else None


def _name_of(block: Block) -> str:
    """What a method calibrates at once: the block, or the layers of a group."""
    return ", ".join(block.layers) if block.of_group else block.name
