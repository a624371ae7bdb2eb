"""What hyocr asks of every method, of `awq` in both formats."""

from __future__ import annotations

from hyocr_core.testing import MethodContract


class TestAwq(MethodContract):
    method = "awq"
    config = {"group_size": 32}
    error_bound = 0.2


class TestAwqInCompressedTensors(MethodContract):
    method = "awq"
    config = {"zero_point": False, "group_size": 64, "search": "module", "n_grid": 4}
    error_bound = 0.25
