"""What hyocr asks of every method, of `gptq` and `rtn` in both formats."""

from __future__ import annotations

from hyocr_core.testing import MethodContract


class TestGptq(MethodContract):
    method = "gptq"
    config = {"group_size": 32}
    error_bound = 0.08


class TestGptqInCompressedTensors(MethodContract):
    method = "gptq"
    config = {"format": "compressed-tensors", "sym": False, "group_size": 32, "quant_vit": True}
    error_bound = 0.08


class TestRoundToNearest(MethodContract):
    method = "rtn"
    config = {"bits": 8, "group_size": 64}
    error_bound = 0.02
