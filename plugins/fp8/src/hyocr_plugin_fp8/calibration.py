"""One pass of a block over its inputs: what its layers read and what its attention caches; scales and Hessians."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from hyocr_core import Batch, Batches, Block, Collected, RunError, Stats
from hyocr_core.formats import CACHE_SCALES
from hyocr_core.kit import add_moments, no_moments, observe_weighted, settle_hessians, summed
from hyocr_plugin_fp8.observers import SAMPLED, Fit, Magnitudes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from hyocr_plugin_fp8.config import Fp8Config

INPUT = "input"
"""What the statistics of a layer's inputs are called; those of the cache are called k and v."""


def calibrate(block: Block, batches: Batches) -> dict[str, Collected]:
    """Return, for each layer, the largest absolute value and a histogram of what static scales are for, and moments.

    `input_largest` and `input_counts` when activations are static; `hessian` and `tokens` when codes make up for each
    other, see `hyocr_core.kit.collect_hessians`. With `kv_cache`, the layers of a group that holds k_proj or v_proj
    share those of `k` and `v`. Raises RunError naming a layer that saw no data.
    """
    moments = {group: _moments(block, group[0]) for group in block.groups if _options(block, group[0]).makes_up}
    inputs = {group: _magnitudes(block, group[0]) for group in block.groups if _is_static(block, group[0])}
    cached = {name: _magnitudes(block, name) for name in block.cached if name in block.layers and _caches(block, name)}
    noted = Noted(batches)

    def observe(names: tuple[str, ...], seen: Tensor, weights: Tensor | None) -> None:
        if names in inputs:
            inputs[names].add(seen, weights, noted.offset)
        if names in moments:
            add_moments(moments[names], seen, weights)

    with _watching({block.cached[name]: magnitudes for name, magnitudes in cached.items()}, noted):
        observe_weighted(block, noted, observe)
    shared: list[Collected] = [{} for _ in block.groups]
    stats = {name: own for group, own in zip(block.groups, shared, strict=True) for name in group}
    for group, magnitudes in inputs.items():
        stats[group[0]].update(_collected(magnitudes, INPUT, group[0], "input"))
    for name, magnitudes in cached.items():
        stats[name].update(_collected(magnitudes, cache_of(name), name, "cached output"))
    for group, sums in moments.items():
        stats[group[0]].update(summed(sums))
    return stats


def settle(block: Block, stats: dict[str, Stats]) -> dict[str, Stats]:
    """Return, for each layer, scales as they are stored and the errors they make on the calibration data.

    `input_scale` and `input_error`; of the cache `k_scale`, `k_error`, `v_scale` and `v_error`; `hessian`. Raises
    RunError naming a layer whose values are NaN or infinite.
    """
    settle_hessians({name: own for name, own in stats.items() if "hessian" in own})
    settled: list[Stats] = [{} for _ in block.groups]
    found = {name: own for group, own in zip(block.groups, settled, strict=True) for name in group}
    for group in block.groups:
        if f"{INPUT}_largest" in stats[group[0]]:
            found[group[0]].update(_fitted(block, stats[group[0]], INPUT, group[0], "input"))
        if "hessian" in stats[group[0]]:
            found[group[0]]["hessian"] = stats[group[0]]["hessian"]
    for name in block.cached:
        if name in stats and f"{cache_of(name)}_largest" in stats[name]:
            found[name].update(_fitted(block, stats[name], cache_of(name), name, "cached output"))
    return found


def cache_of(layer: str) -> str:
    """k or v: what the attention caches in the place of this layer's output."""
    return CACHE_SCALES[layer.rpartition(".")[2]].removesuffix("_scale")


def _options(block: Block, layer: str) -> Fp8Config:
    return cast("Fp8Config", block.configs[layer])


def _is_static(block: Block, layer: str) -> bool:
    return _options(block, layer).activation_scheme == "static"


def _caches(block: Block, layer: str) -> bool:
    return _options(block, layer).kv_cache


def _moments(block: Block, layer: str) -> Stats:
    weight = block.layers[layer].weight
    return no_moments(weight.shape[1], weight.device)


def _magnitudes(block: Block, layer: str) -> Magnitudes:
    return Magnitudes(every=SAMPLED if _options(block, layer).observer == "absmax" else 1)


def _collected(magnitudes: Magnitudes, prefix: str, layer: str, what: str) -> Collected:
    found = magnitudes.collected(prefix)
    if found is None:
        raise RunError(f"{layer}: no calibration data reached it, so the scale of its {what} is unknown; add samples")
    return found


def _fitted(block: Block, stats: Stats, prefix: str, layer: str, what: str) -> Stats:
    config, dtype = _options(block, layer), block.layers[layer].weight.dtype
    fit = Fit.of(stats[f"{prefix}_largest"], stats[f"{prefix}_counts"], config, dtype)
    if fit is None:
        raise RunError(f"{layer}: its {what} is NaN or infinite on the calibration data")
    return {f"{prefix}_scale": fit.scale, f"{prefix}_error": fit.error}


class Noted:
    """Batches that say what the one at work is like. weights: of its tokens. offset: see `Magnitudes.add`."""

    def __init__(self, batches: Batches) -> None:
        self._batches = batches
        self.weights: Tensor | None = None
        self.offset = 0

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        for batch in self._batches:
            self.weights = batch.weights
            # From the name, so that it is the same whatever samples came before.
            self.offset = sum(batch.name.encode())
            yield batch


@contextmanager
def _watching(watchers: dict[nn.Module, Magnitudes], noted: Noted) -> Iterator[None]:
    """Let each watcher count the outputs of its module."""

    def watch(magnitudes: Magnitudes) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _args, output: magnitudes.add(output.detach(), noted.weights, noted.offset)

    handles = [module.register_forward_hook(watch(magnitudes)) for module, magnitudes in watchers.items()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
