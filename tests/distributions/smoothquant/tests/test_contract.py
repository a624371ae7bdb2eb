"""What hyocr asks of every method, of one that folds scales and whose runtimes quantize activations."""

from __future__ import annotations

from hyocr_core.testing import MethodContract


class TestSmoothQuant(MethodContract):
    method = "smoothquant"
    bits = 8
    error_bound = 0.05
