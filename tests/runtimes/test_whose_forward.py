"""The line on a runtime that computes another forward."""

from __future__ import annotations

from hyocr_core.runtimes.whose_forward import other_forward


def test_the_remedy_is_for_vllm_and_for_the_reference() -> None:
    line = "it computes Transformers' forward of HunyuanOCR, not the reference's"
    assert other_forward("it", "transformers", is_vllm=False) == line
    assert other_forward("it", "transformers", is_vllm=True) == (
        f"{line}: pip install hyocr-vllm beside vLLM gives it the reference's"
    )
    assert other_forward("it", "reference", "transformers", is_vllm=True) == (
        "it computes the reference's forward of HunyuanOCR, not Transformers'"
    )
