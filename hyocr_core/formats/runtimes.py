"""Which runtimes load a quantized checkpoint, known from its format and the layers' shapes.

Established with vLLM 0.32 on the CPU and Transformers 5.23; of vLLM on CUDA from its code. Imports no torch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from hyocr_core.formats.shapes import MISREAD
from hyocr_core.wording import phrase, tr

VLLM_CPU, VLLM_CUDA, TRANSFORMERS = "vLLM CPU", "vLLM CUDA", "Transformers"
LLAMA_CPP = "llama.cpp"
CPU_MULTIPLE = 32
VISION = ("vit.", "model.vision_tower.")
MERGER = ("vit.perceive.mlp", *MISREAD)
"""The linear of MISREAD by its on-disk and its in-memory name."""

Answer = Literal["yes", "no", "unsure"]
Shapes = Mapping[str, tuple[int, int]]
"""Name -> (N, K) of quantized linears."""


@dataclass(frozen=True)
class Runtime:
    """Whether a runtime loads a checkpoint. why: the reason or what it needs; may be empty for `yes`."""

    name: str
    loads: Answer
    why: str = ""


def answer(name: str, refusal: str | None) -> Runtime:
    """No for a reason, or yes where there is none."""
    return Runtime(name, "yes") if refusal is None else Runtime(name, "no", refusal)


def unknown(config: Mapping[str, Any]) -> list[Runtime]:
    """What is said of a checkpoint with a quantization_config that hyocr does not read."""
    why = tr("hyocr does not know this kind of {method} checkpoint", method=config.get("quant_method"))
    return [Runtime(name, "unsure", why) for name in (VLLM_CPU, VLLM_CUDA, TRANSFORMERS)]


def together(parts: Iterable[Iterable[Runtime]]) -> list[Runtime]:
    """What holds for a checkpoint whose layers are stored in several formats: the worst answer, and all needs."""
    by_name: dict[str, list[Runtime]] = {}
    for runtime in (runtime for part in parts for runtime in part):
        by_name.setdefault(runtime.name, []).append(runtime)
    return [_worst(name, answers) for name, answers in by_name.items()]


def cpu_refusal(bits: int, shapes: Shapes) -> str | None:
    """Why vLLM on the CPU does not load packed integers of so many bits; None if it does."""
    if bits == 8:
        return phrase("the CPU build has no kernel for 8-bit integers")
    if not set(MERGER).isdisjoint(shapes):
        return phrase("its integer kernels misread the strided input of the patch merger's mlp")
    for name, shape in shapes.items():
        if any(size % CPU_MULTIPLE for size in shape):
            return tr(
                "{name} is {shape}; the CPU kernels want multiples of {multiple}, `ignore` it",
                name=name,
                shape=f"{shape[0]}x{shape[1]}",
                multiple=CPU_MULTIPLE,
            )
    return None


def in_vision(shapes: Shapes) -> bool:
    """Whether linears of the vision tower are among these."""
    return any(name.startswith(VISION) for name in shapes)


def _worst(name: str, answers: Iterable[Runtime]) -> Runtime:
    answers = list(answers)
    for loads in ("no", "unsure"):
        for runtime in answers:
            if runtime.loads == loads:
                return runtime
    return Runtime(name, "yes", max((runtime.why for runtime in answers), key=len))
