"""Which runtimes load a quantized checkpoint, known from its quantization_config and the layers' shapes.

Established with vLLM 0.32 on the CPU and Transformers 5.23; of vLLM on CUDA from its code. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hyocr_core.errors import CheckpointError
from hyocr_core.formats.awq import AwqFormat
from hyocr_core.formats.base import Format
from hyocr_core.formats.fp8 import CompressedFp8Format, Fp8Format
from hyocr_core.formats.gptq import GptqFormat
from hyocr_core.formats.pack_quantized import PackQuantizedFormat
from hyocr_core.formats.read import read_format
from hyocr_core.formats.shapes import MISREAD

VLLM_CPU, VLLM_CUDA, TRANSFORMERS = "vLLM CPU", "vLLM CUDA", "Transformers"
VLLM_GROUPS = (-1, 32, 64, 128)
CPU_MULTIPLE = 32
VISION = ("vit.", "model.vision_tower.")
MERGER = ("vit.perceive.mlp", *MISREAD)
"""The linear of MISREAD by its on-disk and its in-memory name."""
GPTQMODEL = "needs the packages gptqmodel and optimum"

Answer = Literal["yes", "no", "unsure"]


@dataclass(frozen=True)
class Runtime:
    """Whether a runtime loads a checkpoint. why: the reason or what it needs; may be empty for `yes`."""

    name: str
    loads: Answer
    why: str = ""


def runtimes(config: Mapping[str, Any], shapes: Mapping[str, tuple[int, int]]) -> list[Runtime]:
    """Say of each runtime whether it loads a checkpoint with this quantization_config.

    shapes: name -> (N, K) of the quantized linears.
    """
    try:
        written = read_format(config)
    except CheckpointError:
        why = f"hyocr does not know this kind of {config.get('quant_method')} checkpoint"
        return [Runtime(name, "unsure", why) for name in (VLLM_CPU, VLLM_CUDA, TRANSFORMERS)]
    refusals = {VLLM_CPU: [*_vllm_refuses(written), *_cpu_refuses(written, shapes)], VLLM_CUDA: _vllm_refuses(written)}
    vllm = [_of_vllm(name, next(iter(why), None)) for name, why in refusals.items()]
    return [*vllm, _transformers(written, shapes)]


def _of_vllm(name: str, refusal: str | None) -> Runtime:
    return Runtime(name, "yes") if refusal is None else Runtime(name, "no", refusal)


def _vllm_refuses(written: Format) -> Iterator[str]:
    match written:
        case GptqFormat(sym=False):
            yield "its gptq has no zero points (sym: false)"
        case GptqFormat(desc_act=True, group_size=size) if size != -1:
            yield "it drops g_idx, and desc_act announces permuted groups"
        case PackQuantizedFormat(permuted=True):
            yield "it takes no permuted groups (actorder: group)"
        case PackQuantizedFormat(sym=False, bits=8):
            yield "it has no zero points with 8 bits"
    if isinstance(written, GptqFormat | AwqFormat) and written.group_size not in VLLM_GROUPS:
        yield f"group_size {written.group_size}; it takes -1, 32, 64 and 128"


def _cpu_refuses(written: Format, shapes: Mapping[str, tuple[int, int]]) -> Iterator[str]:
    match written:
        case GptqFormat(bits=8) | PackQuantizedFormat(bits=8):
            yield "the CPU build has no kernel for 8-bit integers"
        case Fp8Format() | CompressedFp8Format(weights="tensor"):
            yield "its CPU build lacks static_scaled_fp8_quant, which one scale per weight needs"
        case CompressedFp8Format(activations="static"):
            yield "its CPU matmul takes no static activations with a scale per output channel"
        case GptqFormat() | PackQuantizedFormat() | AwqFormat():
            if not set(MERGER).isdisjoint(shapes):
                yield "its integer kernels misread the strided input of the patch merger's mlp"
            uneven = [name for name, shape in shapes.items() if any(size % CPU_MULTIPLE for size in shape)]
            if uneven:
                outputs, inputs = shapes[uneven[0]]
                yield f"{uneven[0]} is {outputs}x{inputs}; the CPU kernels want multiples of {CPU_MULTIPLE}"


def _transformers(written: Format, shapes: Mapping[str, tuple[int, int]]) -> Runtime:
    loads: Answer = "yes"
    match written:
        case GptqFormat() | AwqFormat() if _is_odd(written):
            loads, why = "unsure", f"not tried; {GPTQMODEL}"
        case GptqFormat() | AwqFormat():
            why = GPTQMODEL
        case PackQuantizedFormat(permuted=True) | PackQuantizedFormat(bits=8, sym=False):
            loads, why = "unsure", "not tried; needs the package compressed-tensors"
        case PackQuantizedFormat() | CompressedFp8Format() if must_unpack(written, shapes):
            why = "needs the package compressed-tensors, and CompressedTensorsConfig(dequantize=True)"
        case PackQuantizedFormat():
            why = "needs the package compressed-tensors"
        case CompressedFp8Format():
            why = "needs the package compressed-tensors, and scales stored in bfloat16"
        case _:
            loads, why = "no", "its fp8 has no static scales and none per weight"
    return Runtime(TRANSFORMERS, loads, why)


def must_unpack(written: Format, shapes: Mapping[str, tuple[int, int]]) -> bool:
    """Whether compressed-tensors loads such a checkpoint in Transformers only if it dequantizes it.

    It lays models out with unpacked zero points and refuses packed ones; its FP8 matmul refuses what the patch merger
    of a quantized vision tower hands it.
    """
    if isinstance(written, CompressedFp8Format):
        return any(name.startswith(VISION) for name in shapes)
    return isinstance(written, PackQuantizedFormat) and not written.sym


def _is_odd(written: GptqFormat | AwqFormat) -> bool:
    """Whether Transformers was not tried with such a checkpoint."""
    if written.group_size not in VLLM_GROUPS:
        return True
    return isinstance(written, GptqFormat) and (written.desc_act or not written.sym)
