"""Search and fold the scales of a block, and say what its layers read from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch

from hyocr_core import Batches, Block, Layer, Smoothing, Stats
from hyocr_core.kit import fold, join_columns, settle_hessians
from hyocr_plugin_awq.expected import expected_best
from hyocr_plugin_awq.layers import rounding_error, solving_factor
from hyocr_plugin_awq.scales import Candidate, candidates
from hyocr_plugin_awq.search import best_candidate, likely_best, linear_loss, module_loss

if TYPE_CHECKING:
    from hyocr_plugin_awq.config import AwqConfig


@torch.no_grad()
def settle(block: Block, batches: Batches, stats: dict[str, Stats]) -> dict[str, Stats]:
    """Smooth `block` in place and return the statistics of its layers as they are then; stats: of `collect_inputs`.

    hessian: (K, K) fp32. output_error_rtn: () of the layer before. Where scales were folded into the layer's columns,
    ratio: () of them; where its rows were divided, rows: (N,) fp32, by what.

    In order of execution, each search on a block that holds the scales found before it: folding keeps what later
    layers read, so no second pass over the samples is needed.
    """
    settle_hessians(stats)
    for own in {id(own): own for own in stats.values()}.values():
        own["magnitudes"] /= own["tokens"].item()
    settled = {name: _unsmoothed(Layer(name, block.layers[name].weight), stats[name], block) for name in block.layers}
    for smoothing in block.smoothing:
        read = stats[smoothing.targets[0]]
        chosen = _search(block, batches, smoothing, read)
        fold(block, smoothing, chosen.scales)
        scales = chosen.scales[smoothing.channels.to(chosen.scales.device)]
        # Layers with one input share one Hessian.
        read["hessian"].div_(scales[:, None]).div_(scales)
        for name in smoothing.targets:
            if chosen.ratio is not None:
                settled[name]["ratio"] = torch.tensor(chosen.ratio, dtype=torch.float64)
        if smoothing.name in settled:
            settled[smoothing.name]["rows"] = chosen.scales
    return settled


def _unsmoothed(layer: Layer, read: Stats, block: Block) -> Stats:
    error = rounding_error(layer, read["hessian"], options(block, layer.name))
    return {"hessian": read["hessian"], "output_error_rtn": torch.tensor(error, dtype=torch.float64)}


def _search(block: Block, batches: Batches, smoothing: Smoothing, read: Stats) -> Candidate:
    layers = [block.layers[name] for name in smoothing.targets]
    config = options(block, smoothing.targets[0])
    pairs = zip(smoothing.targets, layers, strict=True)
    columns = join_columns([Layer(name, layer.weight) for name, layer in pairs])
    channels = smoothing.channels.to(columns.device)
    source_channels = len(smoothing.source.get_parameter("weight"))
    found = candidates(read["magnitudes"], columns, channels, source_channels, config)
    dtype, hessian = layers[0].weight.dtype, read["hessian"]
    # The output of a lone linear is what the Hessian speaks of.
    if config.search == "module" and smoothing.inspected is not layers[0]:
        loss = module_loss(block, batches, smoothing, columns)
        return best_candidate(found, columns, channels, dtype, loss, config)
    factor = solving_factor(hessian) if config.rounding == "gptq" else None
    if factor is not None:
        return expected_best(found, columns, channels, dtype, hessian, factor, config)
    loss = linear_loss(hessian)
    likely = likely_best(found, columns, channels, dtype, loss, config)
    return best_candidate(likely, columns, channels, dtype, loss, config)


def options(block: Block, layer: str) -> AwqConfig:
    """The options that hold for a layer of the block."""
    return cast("AwqConfig", block.configs[layer])
