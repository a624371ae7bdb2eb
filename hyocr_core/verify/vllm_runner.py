"""Read images with a checkpoint in vLLM, offline. Stands alone: it runs in an environment that has vLLM and no hyocr.

    python vllm_runner.py CHECKPOINT REQUESTS.json RESULT.safetensors

REQUESTS is a list of {"image": path, "question": text}, each with "max_tokens" and "logprobs" if they are not 64 and
true. RESULT holds, for request i, `prompt_i` (prompt tokens), `tokens_i` (generated) and, with logprobs, `logprobs_i`
(generated, vocabulary), float32: every step's, of the whole vocabulary. Generation is greedy.

The CPU build of vLLM 0.32 has no kernel that rounds to FP8 with a static scale, which one scale per weight needs:
HYOCR_FP8_EMU=1 puts an emulation in its place.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

# One process: the patches below have to be in the process that runs the model.
os.environ.update(
    HF_HUB_OFFLINE="1",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_NO_USAGE_STATS="1",
    # Threads that are pinned starve when another job holds their core.
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    # Transformers computes with 16-bit activations too; vLLM's CPU kernels would round them to 8 bits.
    VLLM_CPU_INT4_W4A8="0",
)
# Threads that wait for each other starve too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_LENGTH = 512
LARGEST_FP8 = 448.0


def use_pil_image_processor() -> None:
    """Let Transformers 5.19 find the PIL image processor of HunYuanVL, which it ties to torchvision needlessly.

    `processor_config.json` names the class `HunYuanVLImageProcessor`, so the PIL class has to answer to that name.
    """
    from transformers.utils.import_utils import is_torchvision_available

    if is_torchvision_available():
        return
    from transformers import HunYuanVLConfig
    from transformers.models.auto import image_processing_auto
    from transformers.models.hunyuan_vl.image_processing_pil_hunyuan_vl import HunYuanVLImageProcessorPil

    HunYuanVLImageProcessorPil.__name__ = "HunYuanVLImageProcessor"
    mapping: Any = image_processing_auto.IMAGE_PROCESSOR_MAPPING
    mapping.register(HunYuanVLConfig, {"pil": HunYuanVLImageProcessorPil}, exist_ok=True)


def make_inputs_contiguous() -> None:
    """Copy strided inputs of vLLM 0.32's two CPU matmuls, which refuse what HunYuanVL's patch merger hands them."""
    from vllm import _custom_ops as ops  # type: ignore[import-not-found,unused-ignore]

    packed, onednn = ops.weight_packed_linear_cpu, ops.onednn_mm

    def weight_packed_linear_cpu(x: Any, *args: Any) -> Any:
        return packed(x.contiguous(), *args)

    def onednn_mm(handler: Any, x: Any, *args: Any) -> Any:
        return onednn(handler, x.contiguous(), *args)

    ops.weight_packed_linear_cpu, ops.onednn_mm = weight_packed_linear_cpu, onednn_mm


def emulate_fp8() -> None:
    """Round to FP8 in PyTorch where the CPU build calls its missing `static_scaled_fp8_quant`."""
    import torch
    from vllm import _custom_ops as ops  # type: ignore[import-not-found,unused-ignore]

    def scaled_fp8_quant(
        input: Any,  # noqa: A002 - vLLM's name
        scale: Any = None,
        num_token_padding: int | None = None,
        scale_ub: Any = None,
        use_per_token_if_dynamic: bool = False,
        output: Any = None,
        group_shape: Any = None,
    ) -> tuple[Any, Any]:
        del scale_ub, group_shape
        values = input.float()
        if scale is None:
            largest = values.abs().amax(-1, keepdim=True) if use_per_token_if_dynamic else values.abs().amax().view(1)
            scale = largest.clamp(min=1e-12) / LARGEST_FP8
        codes = (values / scale.float()).clamp(-LARGEST_FP8, LARGEST_FP8).to(torch.float8_e4m3fn)
        if output is not None:
            output[: len(codes)].copy_(codes)
            return output, scale
        if num_token_padding and num_token_padding > len(codes):
            filling = torch.zeros(num_token_padding - len(codes), codes.shape[1], dtype=codes.dtype)
            codes = torch.cat([codes, filling])
        return codes, scale

    ops.scaled_fp8_quant = scaled_fp8_quant


def prompt_text(processor: Any, question: str) -> str:
    """The chat prompt with one image, as the checkpoint's own template writes it."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def read_images(checkpoint: Path, requests: list[dict[str, Any]]) -> dict[str, NDArray[Any]]:
    """Answer the requests one at a time: vLLM 0.32 mixes up the features of images that it encodes together."""
    from PIL import Image
    from transformers import HunYuanVLProcessor
    from vllm import LLM, SamplingParams  # type: ignore[import-not-found,unused-ignore]

    processor = HunYuanVLProcessor.from_pretrained(checkpoint)
    llm = LLM(
        model=str(checkpoint),
        enforce_eager=True,
        max_model_len=MAX_LENGTH,
        max_num_batched_tokens=MAX_LENGTH,
        max_num_seqs=1,
        limit_mm_per_prompt={"image": 1},
        enable_prefix_caching=False,
        max_logprobs=-1,
        seed=0,
    )
    results: dict[str, NDArray[Any]] = {}
    for index, request in enumerate(requests):
        image = Image.open(request["image"]).convert("RGB")
        prompt = {"prompt": prompt_text(processor, request["question"]), "multi_modal_data": {"image": image}}
        wanted = -1 if request.get("logprobs", True) else None
        params = SamplingParams(
            temperature=0.0, max_tokens=request.get("max_tokens", 64), detokenize=False, logprobs=wanted
        )
        answer = llm.generate(prompt, params, use_tqdm=False)[0]
        steps = answer.outputs[0]
        results[f"prompt_{index}"] = np.array(answer.prompt_token_ids)
        results[f"tokens_{index}"] = np.array(steps.token_ids)
        if wanted is not None:
            results[f"logprobs_{index}"] = np.array(
                [[step[token].logprob for token in range(len(step))] for step in steps.logprobs], dtype=np.float32
            )
    return results


def main() -> None:
    checkpoint, requests, result = (Path(argument) for argument in sys.argv[1:])
    use_pil_image_processor()
    from vllm.platforms import current_platform  # type: ignore[import-not-found,unused-ignore]

    if current_platform.is_cpu():
        make_inputs_contiguous()
        if os.environ.get("HYOCR_FP8_EMU") == "1":
            emulate_fp8()
    save_file(read_images(checkpoint, json.loads(requests.read_text(encoding="utf-8"))), result)


if __name__ == "__main__":
    main()
