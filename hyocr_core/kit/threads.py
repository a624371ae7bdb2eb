"""How many threads, and which matrix units, a computation gets."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Run many small operations on one thread.

    Waking the others for each costs more than they save; on a busy machine, where each must wait to be scheduled, the
    search for the scales took 70 times as long with two threads as with one.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def exact_matmul(dtype: torch.dtype) -> Iterator[None]:
    """Multiply fp32 matrices that hold values of `dtype` on the fastest units that lose nothing.

    "medium" feeds bf16 units (TF32 on CUDA) and accumulates in fp32: exact to 1e-7 for bf16 values, and for them only.
    """
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("medium" if dtype == torch.bfloat16 else "highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


@contextmanager
def chosen_precision() -> Iterator[None]:
    """Multiply fp32 in full but for what `exact_matmul` allows, and add up 16-bit products in fp32, for the time being.

    On a GPU PyTorch's own choice is TF32 in convolutions and sums of 16-bit products in parts of 16 bits, and whoever
    calls may have set anything.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = torch.get_float32_matmul_precision(), cudnn.allow_tf32
    reduced = matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction
    torch.set_float32_matmul_precision("highest")
    cudnn.allow_tf32 = matmul.allow_bf16_reduced_precision_reduction = False
    matmul.allow_fp16_reduced_precision_reduction = False
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before[0])
        cudnn.allow_tf32 = before[1]
        matmul.allow_bf16_reduced_precision_reduction, matmul.allow_fp16_reduced_precision_reduction = reduced
