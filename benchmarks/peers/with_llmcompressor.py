"""Quantize a HunyuanOCR checkpoint with llm-compressor, as `benchmarks/quality.py` measures it.

`gptq` and `awq` are int4 in groups of 128, `awq` with zero points; `fp8` has one scale for each weight and one, found
in calibration, for its inputs. All else is llm-compressor's default.
"""

from __future__ import annotations

from typing import Any

import torch
from peer import Job, command
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import HunYuanVLForConditionalGeneration

SETTINGS = ("gptq", "awq", "fp8")
DECODER = {"targets": ["Linear"], "ignore": ["re:.*vision_tower.*", "lm_head"]}


def recipe(setting: str) -> list[Any]:
    """The modifiers of a setting."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    if setting == "gptq":
        return [GPTQModifier(scheme="W4A16", **DECODER)]
    if setting == "awq":
        return [AWQModifier(mappings=decoder_mappings()), QuantizationModifier(scheme="W4A16_ASYM", **DECODER)]
    return [QuantizationModifier(scheme="FP8", **DECODER)]


def decoder_mappings() -> list[Any]:
    """llm-compressor's default mappings of AWQ, with their patterns kept to the decoder.

    As they are they match the vision tower's projections too, and AWQ stops before it has begun.
    """
    from llmcompressor.modifiers.transform.awq import AWQMapping
    from llmcompressor.modifiers.transform.awq.mappings import default_mappings

    def inside(pattern: str) -> str:
        return pattern.replace("re:.*", r"re:.*language_model\.layers\.\d+\..*", 1)

    return [AWQMapping(inside(each.smooth_layer), list(map(inside, each.balance_layers))) for each in default_mappings]


def quantize(job: Job) -> dict[str, Tensor]:
    """See `peer.Quantize`."""
    from llmcompressor import oneshot

    if not torch.accelerator.is_available():
        pin_nothing()
    load: Any = HunYuanVLForConditionalGeneration.from_pretrained
    model = load(job.model, dtype="auto", local_files_only=True)
    # A loader of samples is taken as it is: llm-compressor neither shuffles nor pads nor cuts it.
    oneshot(model=model, recipe=recipe(job.setting), dataset=DataLoader(job.samples, batch_size=None))  # type: ignore[arg-type]
    weights = held(model)
    model.save_pretrained(job.staged)
    return weights


def pin_nothing() -> None:
    """Let AWQ run without a GPU: it pins its caches for transfers to one, which fails where there is none."""
    from llmcompressor.pipelines.cache import IntermediatesCache

    IntermediatesCache.pin_memory = lambda *_, **__: None


@torch.no_grad()
def held(model: Any) -> dict[str, Tensor]:
    """Every parameter by in-memory name; a quantized weight as its scales, in memory, let the forward see it."""
    from compressed_tensors.quantization import forward_quantize  # type: ignore[import-untyped]

    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for name, module in model.named_modules():
        scheme = getattr(module, "quantization_scheme", None)
        if scheme is not None:
            weights[f"{name}.weight"] = forward_quantize(module, module.weight, "weight", scheme.weights).clone()
    return weights


if __name__ == "__main__":
    command("llmcompressor", SETTINGS, quantize, __doc__)()
