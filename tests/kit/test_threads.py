"""What is computed does not depend on switches that somebody else has set."""

from __future__ import annotations

from typing import Any

import torch

from hyocr_core.kit.threads import chosen_precision


def flags() -> tuple[Any, ...]:
    matmul = torch.backends.cuda.matmul
    reduced = matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, *reduced


def set_flags(precision: str, tf32: bool, bf16: bool, fp16: bool) -> None:
    matmul = torch.backends.cuda.matmul
    torch.set_float32_matmul_precision(precision)
    torch.backends.cudnn.allow_tf32 = tf32
    matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction = bf16, fp16


def test_precision_is_chosen_and_given_back() -> None:
    """From PyTorch's own choice, which ranks in threads of one process, as in other tests, may not have left."""
    before, own = flags(), ("high", True, True, True)
    set_flags(*own)
    try:
        with chosen_precision():
            assert flags() == ("highest", False, False, False)
        assert flags() == own
    finally:
        set_flags(*before)
