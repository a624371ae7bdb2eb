"""Read images with a checkpoint in vLLM's CPU build, offline, and save every step's full-vocabulary logprobs.

    python run_vllm.py CHECKPOINT REQUESTS.json RESULT.safetensors

Runs in the environment of `make clients`, which holds vLLM and not hyocr. REQUESTS is a list of
{"image": path, "question": text}; RESULT holds, for request i, `prompt_i` (prompt tokens), `tokens_i` (generated) and
`logprobs_i` (generated, vocabulary), float32. Generation is greedy.
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
    # Threads that are pinned, or wait for each other, starve when another job holds their core.
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    OMP_NUM_THREADS="1",
    # Transformers computes with 16-bit activations too; vLLM's CPU kernels would round them to 8 bits.
    VLLM_CPU_INT4_W4A8="0",
)

import numpy as np
from safetensors.numpy import save_file

if TYPE_CHECKING:
    from numpy.typing import NDArray

MAX_LENGTH = 512


def use_pil_image_processor() -> None:
    """Let Transformers 5.19 find the PIL image processor of HunYuanVL, which it ties to torchvision needlessly.

    `processor_config.json` names the class `HunYuanVLImageProcessor`, so the PIL class has to answer to that name.
    """
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


def prompt_text(processor: Any, question: str) -> str:
    """The chat prompt with one image, as the checkpoint's own template writes it."""
    content = [{"type": "image"}, {"type": "text", "text": question}]
    messages = [{"role": "user", "content": content}]
    return str(processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))


def read_images(checkpoint: Path, requests: list[dict[str, str]]) -> dict[str, NDArray[Any]]:
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
    params = SamplingParams(temperature=0.0, max_tokens=64, detokenize=False, logprobs=-1)
    results: dict[str, NDArray[Any]] = {}
    for index, request in enumerate(requests):
        image = Image.open(request["image"]).convert("RGB")
        prompt = {"prompt": prompt_text(processor, request["question"]), "multi_modal_data": {"image": image}}
        answer = llm.generate(prompt, params, use_tqdm=False)[0]
        steps = answer.outputs[0]
        results[f"prompt_{index}"] = np.array(answer.prompt_token_ids)
        results[f"tokens_{index}"] = np.array(steps.token_ids)
        results[f"logprobs_{index}"] = np.array(
            [[step[token].logprob for token in range(len(step))] for step in steps.logprobs], dtype=np.float32
        )
    return results


def main() -> None:
    checkpoint, requests, result = (Path(argument) for argument in sys.argv[1:])
    use_pil_image_processor()
    make_inputs_contiguous()
    save_file(read_images(checkpoint, json.loads(requests.read_text(encoding="utf-8"))), result)


if __name__ == "__main__":
    main()
