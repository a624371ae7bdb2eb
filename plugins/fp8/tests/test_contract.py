"""What hyocr asks of every method, of `fp8` with static and dynamic activations."""

from __future__ import annotations

import torch
from torch import Tensor

from hyocr_core.testing import MethodContract


class Fp8Contract(MethodContract):
    """Rounding to nearest is to the codes of E4M3, with one scale per weight."""

    method = "fp8"
    error_bound = 0.09

    def nearest(self, weight: Tensor) -> Tensor:
        scale = (weight.abs().max().float() / 448).to(weight.dtype).float()
        return ((weight.float() / scale).clamp(-448, 448).to(torch.float8_e4m3fn).float() * scale).to(weight.dtype)


class TestStatic(Fp8Contract):
    config = {"kv_cache": True}


class TestDynamic(Fp8Contract):
    config = {"activation_scheme": "dynamic"}


class TestTheFormatFp8(Fp8Contract):
    config = {"format": "fp8", "quant_vit": True}
