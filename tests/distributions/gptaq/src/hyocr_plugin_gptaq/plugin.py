"""GPTAQ (Li et al. 2025, arXiv 2504.02692) in its closed form, layer by layer within a block.

A layer reads X, made by the quantized layers before it, where the full-precision model reads X'. The weight W* whose
outputs on X are nearest to W's on X' is W + W C (H + damping)^-1 with H = X^T X and C = (X' - X)^T X; GPTQ then
quantizes W* on H. N = out_features, K = in_features.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field

from hyocr_core import (
    Batches,
    Block,
    Collected,
    Layer,
    LayerSpec,
    MethodConfig,
    MethodSpec,
    QuantizedLayer,
    QuantizedNames,
    Stats,
    hookimpl,
)
from hyocr_core.formats import PackQuantizedFormat, check_shapes
from hyocr_core.formats import checkpoint_config as written_config

if TYPE_CHECKING:
    from torch import Tensor

BITS = 4


class GptaqConfig(MethodConfig):
    """Options of the method."""

    format: Literal["compressed-tensors"] = Field("compressed-tensors", description="checkpoint format to write")
    group_size: Literal[32, 64, 128] = Field(32, description="input channels that share a scale")
    damp_percent: float = Field(0.01, gt=0, lt=1, description="share of the Hessian's mean diagonal added to it")

    @property
    def on_disk(self) -> PackQuantizedFormat:
        return PackQuantizedFormat(BITS, self.group_size, sym=True)


@hookimpl
def method_spec() -> MethodSpec:
    summary = "4 bit weights, GPTQ towards the outputs of the full-precision model"
    return MethodSpec("gptaq", GptaqConfig, summary, api_version=1, inputs="group", reference_inputs=True)


@hookimpl
def check_layers(shapes: Mapping[str, tuple[int, int]], config: GptaqConfig) -> None:
    check_shapes(shapes, bits=BITS, group_size=config.group_size)


@hookimpl
def calibrate(block: Block, batches: Batches) -> dict[str, Collected]:
    import torch

    from hyocr_core.kit import add_outer, by_layer, summed

    [group] = block.groups
    width = block.layers[group[0]].in_features
    sums = {name: torch.zeros(width, width) for name in ("hessian", "cross")} | {"tokens": torch.tensor(0)}
    for batch in batches:
        inputs, reference = batch.hidden_states.flatten(0, -2), cast("Tensor", batch.reference).flatten(0, -2)
        add_outer(sums["hessian"], inputs)
        sums["cross"] += (reference.float() - inputs.float()).T @ inputs.float()
        sums["tokens"] += len(inputs)
    return by_layer(block.groups, {group: summed(sums)})


@hookimpl
def settle(stats: dict[str, Stats]) -> dict[str, Stats]:
    from hyocr_core.kit import settle_hessians

    settle_hessians(stats)
    for own in {id(own): own for own in stats.values()}.values():
        own["cross"] *= 2 / own["tokens"].item()
    return stats


@hookimpl
def quantize_layer(layer: Layer, stats: Stats, config: GptaqConfig) -> QuantizedLayer:
    import torch

    from hyocr_core.kit import checked_hessian, fit_grid, integer_layer, join_columns, round_to_nearest, solve

    hessian, columns = checked_hessian([layer], stats), join_columns([layer])
    damped = hessian + config.damp_percent * hessian.diagonal().mean() * torch.eye(len(hessian))
    target = columns + torch.linalg.solve(damped, stats["cross"].T @ columns)
    grid = fit_grid(target, layer.weight.dtype, bits=BITS, group_size=config.group_size, sym=True, mse=False)
    found = solve(target, hessian, grid, damp_percent=config.damp_percent, block_size=128, desc_act=True)
    codes = round_to_nearest(target, grid) if found is None else found.codes
    return integer_layer(layer, codes, grid)


@hookimpl
def pack(layer: QuantizedLayer, config: GptaqConfig) -> dict[str, Tensor]:
    from hyocr_core.kit import pack_integers

    return pack_integers(layer, config.on_disk, BITS)


@hookimpl
def unpack(tensors: dict[str, Tensor], layer: LayerSpec, config: GptaqConfig) -> Tensor:
    from hyocr_core.kit import unpack_integers

    return unpack_integers(tensors, config.on_disk)


@hookimpl
def checkpoint_config(names: QuantizedNames, layers: Mapping[str, GptaqConfig]) -> dict[str, Any]:
    return written_config({name: config.on_disk for name, config in layers.items()}, names)
