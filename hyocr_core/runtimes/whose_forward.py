"""Whose forward a runtime computes, in words."""

from __future__ import annotations

from collections.abc import Mapping

from hyocr_core.contract.backend import Forward

WHOSE: Mapping[Forward, str] = {"reference": "the reference's", "transformers": "Transformers'"}

REMEDY = "pip install hyocr-vllm beside vLLM gives it the reference's"


def other_forward(who: str, found: Forward, wanted: Forward = "reference", *, is_vllm: bool) -> str:
    """The line on a runtime that computes another forward than the wanted one, and what to do about it."""
    remedy = f": {REMEDY}" if is_vllm and wanted == "reference" else ""
    return f"{who} computes {WHOSE[found]} forward of HunyuanOCR, not {WHOSE[wanted]}{remedy}"
