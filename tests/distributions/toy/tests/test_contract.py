"""What hyocr asks of every method, of `toy`."""

from __future__ import annotations

from hyocr_core.testing import MethodContract


class TestToy(MethodContract):
    method = "toy"
    bits = 8
    error_bound = 0.02
