"""What hyocr asks of every method, of `gguf`."""

from __future__ import annotations

from hyocr_core.testing import MethodContract


class TestGguf(MethodContract):
    method = "gguf"
    bits = 4
    group_size = 32
    config = {"type": "q4_0", "quant_vit": True, "mmproj": "q8_0"}
    error_bound = 0.08
