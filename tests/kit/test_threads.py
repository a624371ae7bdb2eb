"""What is computed does not depend on switches that somebody else has set."""

from __future__ import annotations

import torch

from hyocr_core.kit.threads import chosen_precision


def flags() -> tuple[object, ...]:
    matmul = torch.backends.cuda.matmul
    reduced = matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction
    return torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32, *reduced


def test_precision_is_chosen_and_given_back() -> None:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        found = flags()
        assert found[1:] == (True, True, True), "PyTorch's own choice, for which this is there"
        with chosen_precision():
            assert flags() == ("highest", False, False, False)
        assert flags() == found
    finally:
        torch.set_float32_matmul_precision(before)
