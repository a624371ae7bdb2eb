"""How much work a run is, counted from shapes, and how fast this machine does such work, measured in a moment."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from hyocr_core.kit.threads import one_thread
from hyocr_core.models.wiring import Place
from hyocr_core.run.job import Job

MEASURED_SECONDS = 0.1
"""For each kind of work."""

MATMUL_ROWS = 1024
ATTENTION_TOKENS = 1024

PASSES = 2
"""Forward passes of a calibrated block: one for the statistics, one to carry the samples on."""


@dataclass(frozen=True)
class Size:
    """One calibration sample."""

    tokens: int
    patches: int


@dataclass(frozen=True)
class Workload:
    """Floating-point operations. matmul: of linears. attention: of queries, keys and values."""

    matmul: float
    attention: float


@dataclass(frozen=True)
class Speed:
    """Operations per second. rounding: weights per second in one elementwise operation, fp32."""

    matmul: float
    attention: float
    rounding: float


def forward_work(job: Job, sizes: Sequence[Size]) -> Workload:
    """The forward passes of a calibration: the vision tower and the decoder over every sample.

    A linear of N x K costs 2NK operations per token, attention 4 times tokens squared times its width.
    """
    text, vision = job.model.config.text_config, job.model.config.vision_config
    decoder = _parameters(job, [name for place in job.model.decoder_blocks for name in _linears(job, place)])
    tower = _parameters(job, [name for place in job.model.vision_blocks for name in _linears(job, place)])
    tokens, patches = (sum(size.tokens for size in sizes), sum(size.patches for size in sizes))
    squares = sum(size.tokens**2 for size in sizes), sum(size.patches**2 for size in sizes)
    vision_passes = PASSES if job.quantizes_vision else 1
    text_width = text.num_hidden_layers * text.num_attention_heads * text.head_dim
    vision_width = vision.num_hidden_layers * vision.hidden_size
    return Workload(
        matmul=2 * (PASSES * decoder * tokens + vision_passes * tower * patches),
        attention=4 * (PASSES * text_width * squares[0] + vision_passes * vision_width * squares[1]),
    )


def measure_speed(job: Job) -> Speed:
    """Time operations of the model's own width on the device of the run."""
    device, dtype = job.model.device, job.model.dtype
    text, vision = job.model.config.text_config, job.model.config.vision_config
    rows = torch.ones(MATMUL_ROWS, text.hidden_size, device=device, dtype=dtype)
    weight = torch.ones(text.intermediate_size, text.hidden_size, device=device, dtype=dtype)
    heads, head = vision.num_attention_heads, vision.hidden_size // vision.num_attention_heads
    queries = torch.ones(1, heads, ATTENTION_TOKENS, head, device=device, dtype=dtype)
    values = torch.ones(2**20, device=device)
    with one_thread():
        rounding = values.numel() / _seconds(lambda: torch.round(values), device)
    return Speed(
        matmul=2 * MATMUL_ROWS * weight.numel() / _seconds(lambda: functional.linear(rows, weight), device),
        attention=4
        * ATTENTION_TOKENS**2
        * vision.hidden_size
        / _seconds(lambda: functional.scaled_dot_product_attention(queries, queries, queries), device),
        rounding=rounding,
    )


def _linears(job: Job, place: Place) -> list[str]:
    return [name for group in job.model.groups(place) for name in group]


def _parameters(job: Job, names: Sequence[str]) -> int:
    return sum(outputs * inputs for outputs, inputs in (job.model.linears[name] for name in names))


def _seconds(work: Callable[[], object], device: torch.device) -> float:
    """Mean seconds of one call, after a first one that warms up."""
    work()
    _wait(device)
    start, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - start) < MEASURED_SECONDS or not calls:
        work()
        _wait(device)
        calls += 1
    return elapsed / calls


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
