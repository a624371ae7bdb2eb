"""Search and fold the scales of a block, and say what its layers read from then on."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from hyocr_core import Batches, Block, Layer, Smoothing, Stats
from hyocr_core.kit.grid import join_columns
from hyocr_core.kit.smoothing import fold
from hyocr_plugin_awq.inputs import Inputs, collect_inputs
from hyocr_plugin_awq.layers import rounding_error
from hyocr_plugin_awq.scales import Candidate, candidates
from hyocr_plugin_awq.search import Loss, best_candidate, linear_loss, module_loss

if TYPE_CHECKING:
    from hyocr_plugin_awq.config import AwqConfig


@torch.no_grad()
def calibrate(block: Block, batches: Batches, config: AwqConfig) -> dict[str, Stats]:
    """Smooth `block` in place and return the statistics of its layers as they are then.

    hessian: (K, K) fp32. output_error_rtn: () of the layer before. Where scales were folded into the layer's columns,
    ratio: () of them; where its rows were divided, rows: (N,) fp32, by what.

    In order of execution, each search on a block that holds the scales found before it: folding keeps what later
    layers read, so no second pass over the samples is needed.
    """
    inputs = collect_inputs(block, batches)
    of_layer = {name: inputs[names] for names in block.groups for name in names}
    stats = {name: _unsmoothed(Layer(name, block.layers[name].weight), read, config) for name, read in of_layer.items()}
    for smoothing in block.smoothing:
        read = of_layer[smoothing.targets[0]]
        chosen = _search(block, batches, smoothing, read, config)
        fold(block, smoothing, chosen.scales)
        scales = chosen.scales[smoothing.channels.to(chosen.scales.device)]
        # Layers with one input share one Hessian.
        read.hessian.div_(scales[:, None]).div_(scales)
        for name in smoothing.targets:
            if chosen.ratio is not None:
                stats[name]["ratio"] = torch.tensor(chosen.ratio, dtype=torch.float64)
        if smoothing.name in stats:
            stats[smoothing.name]["rows"] = chosen.scales
    return stats


def _unsmoothed(layer: Layer, read: Inputs, config: AwqConfig) -> Stats:
    error = rounding_error(layer, read.hessian, config)
    return {"hessian": read.hessian, "output_error_rtn": torch.tensor(error, dtype=torch.float64)}


def _search(block: Block, batches: Batches, smoothing: Smoothing, read: Inputs, config: AwqConfig) -> Candidate:
    layers = [block.layers[name] for name in smoothing.targets]
    pairs = zip(smoothing.targets, layers, strict=True)
    columns = join_columns([Layer(name, layer.weight) for name, layer in pairs])
    channels = smoothing.channels.to(columns.device)
    source_channels = len(smoothing.source.get_parameter("weight"))
    found = candidates(read.magnitudes, columns, channels, source_channels, config)
    loss: Loss
    # The output of a lone linear is what the Hessian speaks of.
    if config.search == "module" and smoothing.inspected is not layers[0]:
        loss = module_loss(block, batches, smoothing, columns)
    else:
        loss = linear_loss(read.hessian)
    return best_candidate(found, columns, channels, layers[0].weight.dtype, loss, config)
