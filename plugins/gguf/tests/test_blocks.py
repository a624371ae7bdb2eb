"""Blocks of ggml hold exactly what the grid says, by the package `gguf`'s own dequantization."""

from __future__ import annotations

import pytest
import torch
from gguf import GGMLQuantizationType
from gguf.quants import dequantize
from hyocr_plugin_gguf.blocks import BITS, SYMMETRIC, pack_blocks, storable
from hyocr_plugin_gguf.config import GgufConfig
from hyocr_plugin_gguf.k_quants import GROUP, fit_steps, pack_steps
from hyocr_plugin_gguf.layers import quantize_nearest, quantize_solved
from hyocr_plugin_gguf.mixture import of_more_bits
from hyocr_plugin_gguf.plugin import check_layers
from hyocr_plugin_gguf.stored import GgufFormat

from hyocr_core import ConfigError, Layer, RunError
from hyocr_core.kit import Grid, fit_grid, round_to_nearest

KINDS = ("q4_0", "q4_1", "q8_0")
SHAPES = ((1, 32), (5, 96), (33, 256))


def fitted(kind: str, shape: tuple[int, int], size: float = 1.0) -> tuple[torch.Tensor, Grid]:
    """Codes of a random weight, and their grid."""
    columns = size * torch.randn(shape, generator=torch.Generator().manual_seed(shape[1])).T.contiguous()
    grid = fit_grid(columns, torch.float16, bits=BITS[kind], group_size=32, sym=SYMMETRIC[kind], mse=False)
    grid = storable(grid, kind)
    return round_to_nearest(columns, grid), grid


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("size", [1.0, 1e-5, 300.0])
def test_the_package_reads_the_very_values(kind: str, shape: tuple[int, int], size: float) -> None:
    codes, grid = fitted(kind, shape, size)
    blocks = pack_blocks(codes, grid, kind)
    read = torch.from_numpy(dequantize(blocks.numpy(), GGMLQuantizationType[kind.upper()]))
    exact = torch.empty(shape)
    for output in range(shape[0]):
        for channel in range(shape[1]):
            group = channel // 32
            steps = float(codes[channel, output]) - float(grid.zeros[group, output])
            exact[output, channel] = steps * float(grid.scales[group, output])
    assert torch.equal(read, exact)


@pytest.mark.parametrize("kind", GROUP)
@pytest.mark.parametrize("size", [1.0, 0.01, 300.0])
def test_the_package_reads_the_very_values_of_super_blocks(kind: str, size: float) -> None:
    weight = size * torch.randn(5, 512, generator=torch.Generator().manual_seed(3))
    weight[1] = 0
    weight[2, :32] = weight[2, :32].abs() + size
    steps = fit_steps(weight, torch.rand(512, generator=torch.Generator().manual_seed(4)), kind)
    codes = steps.codes(weight)
    read = torch.from_numpy(dequantize(pack_steps(codes, steps, kind).numpy(), GGMLQuantizationType[kind.upper()]))
    for row in range(5):
        for channel in range(512):
            group = channel // GROUP[kind]
            exact = codes[row, channel] * steps.scales[row, group] - steps.minima[row, group]
            assert read[row, channel] == exact
    assert float((read - weight).norm()) < {"q4_k": 0.09, "q6_k": 0.025}[kind] * float(weight.norm())


def test_channels_that_matter_lose_less() -> None:
    weight = torch.randn(32, 256, generator=torch.Generator().manual_seed(5))
    importance = torch.where(torch.arange(256) % 7 == 0, 100.0, 1.0)
    lost = []
    for weights in (importance, torch.ones(256)):
        steps = fit_steps(weight, weights, "q4_k")
        read = torch.from_numpy(
            dequantize(pack_steps(steps.codes(weight), steps, "q4_k").numpy(), GGMLQuantizationType.Q4_K)
        )
        lost.append(float(((read - weight).square() * importance).sum()))
    assert lost[0] < 0.8 * lost[1]


def test_the_mixture_is_that_of_llama_cpp() -> None:
    parts = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")
    names = [f"model.layers.{index}.{part}" for index in range(24) for part in parts]
    found = list(of_more_bits([*names, "vit.layers.0.self_attn.v_proj", "lm_head"]))
    config = GgufConfig(type="q4_k_m", more_bits=True)
    wider = [name for name in found if config.stored_type(name) == "q6_k"]
    blocks = (0, 1, 2, 5, 8, 11, 14, 17, 20, 21, 22, 23)
    assert wider == [f"model.layers.{index}.{part}" for index in blocks for part in parts[2::2]]
    assert {config.stored_type(name) for name in found if name not in wider} == {"q4_k"}
    assert GgufConfig(type="q4_k_m").stored_type(wider[0]) == "q4_k"


@pytest.mark.parametrize("kind", [*KINDS, *GROUP, "f16"])
def test_nearest_is_what_the_format_rounds_to(kind: str) -> None:
    weight = torch.randn(7, 256, generator=torch.Generator().manual_seed(1)).bfloat16()
    option = "q4_k_m" if kind == "q4_k" else kind
    config = GgufConfig(type=option, codes="nearest")
    layer = quantize_nearest(Layer("model.layers.0.mlp.down_proj", weight), config)
    written = GgufFormat(kind)
    assert torch.equal(written.decode(layer.tensors, torch.bfloat16), layer.dequantized)
    assert torch.equal(written.nearest(weight), layer.dequantized)
    assert not list(written.problems({n: (tuple(t.shape), t.dtype) for n, t in layer.tensors.items()}, (7, 256)))


@pytest.mark.parametrize("kind", [*KINDS, "q4_k_m", "q6_k"])
def test_the_solver_loses_less_than_rounding(kind: str) -> None:
    generator = torch.Generator().manual_seed(2)
    inputs = torch.randn(512, 12, generator=generator) @ torch.randn(12, 256, generator=generator)
    inputs += 0.1 * torch.randn(512, 256, generator=generator)
    layer = Layer("model.layers.0.mlp.down_proj", torch.randn(40, 256, generator=generator).bfloat16())
    stats = {"hessian": 2 * inputs.T @ inputs / 512, "tokens": torch.tensor(512)}
    [found] = quantize_solved([layer], stats, GgufConfig(type=kind))
    nearest = quantize_nearest(layer, GgufConfig(type=kind, codes="nearest"))
    lost, lost_by_rounding = (
        float(((each.dequantized - layer.weight).float() @ inputs.T).norm()) for each in (found, nearest)
    )
    assert lost < 0.8 * lost_by_rounding
    assert torch.allclose(found.tensors["weight_importance"], inputs.square().mean(0), rtol=1e-4)


@pytest.mark.filterwarnings("ignore:overflow encountered")
def test_weights_beyond_float16_stop_the_run_by_name() -> None:
    layer = Layer("model.layers.0.mlp.down_proj", torch.full((2, 32), 1e8))
    with pytest.raises(RunError, match=r"model\.layers\.0\.mlp\.down_proj: .*overflow float16"):
        quantize_nearest(layer, GgufConfig(codes="nearest"))


def test_a_width_that_blocks_do_not_divide_is_refused_by_name() -> None:
    shapes = {"model.layers.0.mlp.down_proj": (64, 80)}
    with pytest.raises(ConfigError, match=r"down_proj: its width of 80 .* multiple of 32.*`ignore`"):
        check_layers(shapes, GgufConfig())
    check_layers(shapes, GgufConfig(type="f16"))


def test_such_a_linear_falls_back_to_f16() -> None:
    fallback = GgufConfig(type="q8_0").fallback((1152, 4304))
    assert fallback is not None
    assert fallback.options == {"type": "f16"}
    assert "4304" in fallback.why
    assert GgufConfig().fallback((64, 64)) is None
    fallback = GgufConfig(type="q4_k_m").fallback((64, 96))
    assert fallback is not None
    assert fallback.options == {"type": "q8_0"}
