"""Quantized checkpoints read the same in vLLM's CPU build as in Transformers on the unpacked weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from transformers import CompressedTensorsConfig, HunYuanVLForConditionalGeneration

from hyocr_core.models.load import load_model

if TYPE_CHECKING:
    from tests.clients.conftest import Answer, Quantize, ReadWithTransformers, ReadWithVllm, RunVllm

CPU = torch.device("cpu")
READABLE = [
    ("bits=4", "group_size=128"),
    ("bits=4", "group_size=32", "desc_act=true"),
    ("bits=4", "group_size=-1"),
    ("bits=4", "group_size=128", "format=compressed-tensors"),
    ("bits=4", "group_size=64", "sym=false", "format=compressed-tensors"),
]


@dataclass(frozen=True)
class Distance:
    """How far two clients' full-vocabulary logprobs are apart, over the steps before their texts part, in nats."""

    mean: float
    largest: float


def common_steps(a: Answer, b: Answer) -> int:
    """Steps that both took from the same tokens, the one at which they part included."""
    parted = next((i for i, (x, y) in enumerate(zip(a.tokens, b.tokens, strict=False)) if x != y), None)
    return min(len(a.tokens), len(b.tokens)) if parted is None else parted + 1


def distance(left: list[Answer], right: list[Answer]) -> Distance:
    gaps = []
    for a, b in zip(left, right, strict=True):
        steps = common_steps(a, b)
        gaps.append(np.abs(a.logprobs[:steps] - b.logprobs[:steps]).ravel())
    every = np.concatenate(gaps)
    return Distance(float(every.mean()), float(every.max()))


def assert_same_text(left: list[Answer], right: list[Answer], noise: float) -> None:
    """Same tokens; where they part, both clients must have found the two tokens closer than the noise between them."""
    for a, b in zip(left, right, strict=True):
        assert a.prompt == b.prompt
        last = common_steps(a, b) - 1
        x, y = a.tokens[last], b.tokens[last]
        if a.tokens != b.tokens:
            assert x != y, "one answer is the beginning of the other"
            assert a.logprobs[last, x] - a.logprobs[last, y] < noise
            assert b.logprobs[last, y] - b.logprobs[last, x] < noise


@pytest.fixture(scope="module")
def bf16(demo: Path, read_with_transformers: ReadWithTransformers) -> list[Answer]:
    return read_with_transformers(load_model(demo, CPU))


@pytest.fixture(scope="module")
def noise(demo: Path, read_with_vllm: ReadWithVllm, bf16: list[Answer]) -> Distance:
    """What bf16 arithmetic alone puts between the clients: the unquantized checkpoint in both."""
    return distance(read_with_vllm(demo), bf16)


@pytest.mark.parametrize("options", READABLE, ids="-".join)
def test_vllm_reads_as_transformers_on_unpacked_weights(
    options: tuple[str, ...],
    quantize: Quantize,
    read_with_vllm: ReadWithVllm,
    read_with_transformers: ReadWithTransformers,
    bf16: list[Answer],
    noise: Distance,
) -> None:
    checkpoint = quantize(*options)
    expected = read_with_transformers(load_model(checkpoint, CPU))
    found = read_with_vllm(checkpoint)
    assert_same_text(found, expected, noise.largest)
    apart = distance(found, expected)
    assert apart.mean < 2 * noise.mean
    assert apart.largest < 2 * noise.largest
    # Were the weights loaded wrong, the answers would be as far off as another quantization's; this bound sees that.
    assert distance(found, bf16).mean > 3 * noise.mean


# Zero points load only with `dequantize`: without, compressed-tensors 0.20 lays out the model on the meta device with
# unpacked zero points, and refuses every checkpoint that has packed ones.
@pytest.mark.parametrize(("options", "dequantize"), [(READABLE[3], False), (READABLE[4], True)], ids=["sym", "asym"])
def test_transformers_loads_compressed_tensors(
    options: tuple[str, ...], dequantize: bool, quantize: Quantize, read_with_transformers: ReadWithTransformers
) -> None:
    checkpoint = quantize(*options)
    how = CompressedTensorsConfig(dequantize=dequantize)
    loaded = HunYuanVLForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.bfloat16, quantization_config=how
    )
    found = read_with_transformers(loaded)
    expected = read_with_transformers(load_model(checkpoint, CPU))
    assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]


def test_vllm_cpu_has_no_kernel_for_8_bits(quantize: Quantize, run_vllm: RunVllm, tmp_path: Path) -> None:
    done = run_vllm(quantize("bits=8"), tmp_path / "result.safetensors")
    assert done.returncode != 0
    assert "Only types = [ScalarType.uint4b8] are supported" in done.stdout
