"""What hyocr asks of every method, of one that calibrates group by group beside the full-precision path."""

from __future__ import annotations

from hyocr_core.testing import MethodContract


class TestGptaq(MethodContract):
    method = "gptaq"
    error_bound = 0.12
