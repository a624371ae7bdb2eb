"""Quantize a HunyuanOCR checkpoint with GPTQModel, as `benchmarks/quality.py` measures it.

All are int4 in groups of 128, and all else is GPTQModel's default: `gptq` orders columns by their activations and keeps
the groups, `gptq-best` permutes the groups, searches scales (mse 2.4) and corrects for quantized inputs (GPTAQ),
`gptq-best-served` is the same but keeps the groups, as vLLM asks for, and `awq`.

Where lines differ in length, GPTQModel's AWQ keeps only the last of them (`latest_batch` in its log): its result says
what one gets by its defaults, and not what AWQ makes of all lines.
"""

from __future__ import annotations

import os
from contextlib import chdir
from typing import Any

import torch
from peer import Job, command
from torch import Tensor

SETTINGS = ("gptq", "gptq-best", "gptq-best-served", "awq")

# With one or two cores it takes a single worker, and then stops because it wants two for loading models.
os.environ.setdefault("GPTQMODEL_CPU_WORKERS", "2")


def config(setting: str) -> Any:
    """The options of a setting. Packing by Python needs no C++ compiler; weights in memory can be looked at."""
    from gptqmodel.quantization.config import AWQConfig, GPTAQConfig, GPTQConfig

    options = {"bits": 4, "group_size": 128, "device": "cpu", "offload_to_disk": False, "pack_impl": "original"}
    if setting == "awq":
        return AWQConfig(**options)
    if setting == "gptq":
        return GPTQConfig(**options)
    return GPTQConfig(**options, desc_act=setting == "gptq-best", mse=2.4, gptaq=GPTAQConfig())


def quantize(job: Job) -> dict[str, Tensor]:
    """See `peer.Quantize`."""
    from gptqmodel import GPTQModel

    # It logs into a folder `logs` of wherever it runs.
    with chdir(job.staged.parent):
        model = GPTQModel.load(str(job.model), config(job.setting), trust_remote_code=False)
        # It takes conversations and has the processor write them; these are written already.
        model.prepare_dataset = lambda **_: [with_mask(sample) for sample in job.samples]
        model.quantize(job.samples, batch_size=1)
        model.save(str(job.staged))
    return held(model.model)


def with_mask(sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """A sample with the mask that GPTQModel looks up: every token counts."""
    return sample | {"attention_mask": torch.ones_like(sample["input_ids"])}


@torch.no_grad()
def held(model: Any) -> dict[str, Tensor]:
    """Every parameter by in-memory name; a packed weight as GPTQModel unpacks it, in fp32."""
    from gptqmodel.nn_modules.qlinear import BaseQuantLinear

    weights = {name: value.clone() for name, value in model.state_dict().items()}
    for name, module in model.named_modules():
        if isinstance(module, BaseQuantLinear):
            weights[f"{name}.weight"] = unpacked(module).T.contiguous()
    return weights


def unpacked(module: Any) -> Tensor:
    """The weight (K, N) of a packed linear by GPTQModel's own functions; in fp32, so that fp16 does not round it."""
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
    from gptqmodel.utils.model import convert_gptq_v1_to_v2_format_module

    module.scales = module.scales.float()
    weight: Tensor
    if hasattr(module, "dequantize_weight"):
        # Stored zero points are one less than they are, which it undoes when it loads them.
        convert_gptq_v1_to_v2_format_module(module, module.bits, module.pack_dtype)
        weight = module.dequantize_weight()
    else:
        weight = dequantize_gemm(module.qweight, module.qzeros, module.scales, module.bits, module.group_size)
    return weight


if __name__ == "__main__":
    command("gptqmodel", SETTINGS, quantize, __doc__)()
