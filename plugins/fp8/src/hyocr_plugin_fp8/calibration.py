"""One pass of a block over its cached inputs: scales for the inputs of its layers and for what its attention caches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from hyocr_core import Batch, Batches, Block, RunError, Stats, observe_weighted
from hyocr_core.formats.cache import CACHE_SCALES
from hyocr_plugin_fp8.observers import SAMPLED, Fit, Magnitudes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hyocr_plugin_fp8.config import Fp8Config


def calibrate(block: Block, batches: Batches, config: Fp8Config) -> dict[str, Stats]:
    """Return, for each layer, scales as they are stored and the errors they make on the calibration data.

    `input_scale` and `input_error` when activations are static. With `kv_cache`, the layers of a group that holds
    k_proj or v_proj share `k_scale`, `k_error`, `v_scale` and `v_error`. Raises RunError naming a layer that saw no
    data.
    """
    inputs = {group: _magnitudes(config) for group in block.groups} if config.activation_scheme == "static" else {}
    cached = {name: _magnitudes(config) for name in block.cached} if config.kv_cache else {}
    noted = Noted(batches)

    def observe(names: tuple[str, ...], seen: Tensor, weights: Tensor | None) -> None:
        if names in inputs:
            inputs[names].add(seen, weights)

    with _watching({block.cached[name]: magnitudes for name, magnitudes in cached.items()}, noted):
        observe_weighted(block, noted, observe)
    shared: list[Stats] = [{} for _ in block.groups]
    stats = {name: own for group, own in zip(block.groups, shared, strict=True) for name in group}
    for group, magnitudes in inputs.items():
        fit = _fit(magnitudes, group[0], "input", block, config)
        stats[group[0]].update(input_scale=fit.scale, input_error=fit.error)
    for name, magnitudes in cached.items():
        fit = _fit(magnitudes, name, "cached output", block, config)
        scale = CACHE_SCALES[name.rpartition(".")[2]]
        stats[name].update({scale: fit.scale, scale.replace("scale", "error"): fit.error})
    return stats


def _magnitudes(config: Fp8Config) -> Magnitudes:
    return Magnitudes(every=SAMPLED if config.observer == "absmax" else 1)


class Noted:
    """Batches that say which weights the tokens of the one at work have."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.weights: Tensor | None = None

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            self.weights = batch.weights
            yield batch


@contextmanager
def _watching(watchers: dict[nn.Module, Magnitudes], noted: Noted) -> Iterator[None]:
    """Let each watcher count the outputs of its module."""

    def watch(magnitudes: Magnitudes) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _args, output: magnitudes.add(output.detach(), noted.weights)

    handles = [module.register_forward_hook(watch(magnitudes)) for module, magnitudes in watchers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _fit(magnitudes: Magnitudes, name: str, what: str, block: Block, config: Fp8Config) -> Fit:
    if magnitudes.largest is None:
        raise RunError(f"{name}: no calibration data reached it, so the scale of its {what} is unknown; add samples")
    fit = magnitudes.fit(config, block.layers[name].weight.dtype)
    if fit is None:
        raise RunError(f"{name}: its {what} is NaN or infinite on the calibration data")
    return fit
