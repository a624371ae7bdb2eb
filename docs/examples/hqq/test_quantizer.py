import torch
from hyocr_core import Layer
from hyocr_core.kit import decode, fit_grid, join_columns, round_to_nearest

from hyocr_plugin_hqq.config import HqqConfig
from hyocr_plugin_hqq.quantizer import quantize


def test_the_norm_is_less_than_that_of_rounding_to_nearest() -> None:
    torch.manual_seed(0)
    weight = torch.distributions.StudentT(4.0).sample((64, 128))
    layer = Layer("layer", weight)
    columns = join_columns([layer])
    for mse in (False, True):
        grid = fit_grid(columns, weight.dtype, bits=4, group_size=32, sym=True, mse=mse)
        rounded = decode(round_to_nearest(columns, grid), grid).T
        found = quantize(layer, HqqConfig(group_size=32, p=0.7)).dequantized
        assert (found - weight).abs().pow(0.7).sum() < (rounded - weight).abs().pow(0.7).sum()
