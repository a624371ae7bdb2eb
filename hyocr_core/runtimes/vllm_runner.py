"""Read images with a checkpoint in vLLM, offline. Stands alone: it runs in an environment that has vLLM and no hyocr.

    python vllm_runner.py CHECKPOINT MAX_TOKENS AT_ONCE [fast]
    python vllm_runner.py --installed

Each line of stdin is a request {"number": n, "prompt": text, "image": PNG in base64, "max_tokens": n}; the prompt is
what the chat template wrote, with one image token. Each line of stdout answers one, as it is done: {"number": n,
"prompt": ids, "tokens": ids, "ended": whether it was not cut, "seconds": since the answer before, or since it was
asked}. A request may add "repetition_penalty", "stop_token_ids" beside those that the checkpoint's own files name, and
"logprobs": true, for which the answer adds "logprobs": (generated, vocabulary), every step's, of the whole vocabulary.
One that adds "timed": true is
answered with "times" too: when it came, when its first token was there and when it was done, by `time.monotonic()`.
Generation is greedy. MAX_TOKENS is the most that prompt and answer may have together, AT_ONCE the most requests that
are read at the same time. What vLLM itself prints goes to stderr. With `fast` vLLM does as `vllm serve`:
a GPU may compile and record what it runs, which takes a while to begin with, and kernels may round what they read.

The CPU build of vLLM 0.32 has no kernel that rounds to FP8 with a static scale, which one scale per weight needs:
HYOCR_FP8_EMU=1 puts an emulation in its place.

The second form loads nothing and prints two lines: the vLLM that is here and the versions beside it, of which nothing
is imported, or null and no second line; and whose forward this Transformers computes, hyocr's plugin of vLLM applied if
it is there: `reference`, `transformers`, or null for neither.
"""

from __future__ import annotations

import base64
import io
import json
import math
import os
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, entry_points, packages_distributions, version
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

# One process: the patches below have to be in the process that runs the model.
os.environ.update(
    HF_HUB_OFFLINE="1",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_NO_USAGE_STATS="1",
    # Threads that are pinned starve when another job holds their core.
    VLLM_CPU_OMP_THREADS_BIND="nobind",
)
if sys.argv[-1] != "fast":
    # Transformers computes with 16-bit activations too; vLLM's CPU kernels would round them to 8 bits.
    os.environ["VLLM_CPU_INT4_W4A8"] = "0"
# Threads that wait for each other starve too.
os.environ.setdefault("OMP_NUM_THREADS", "1")

OLDER_TRANSFORMERS = Path(__file__).parents[1] / "pages/older_transformers.py"
FORWARD = Path(__file__).with_name("forward.py")
BESIDE = "torch", "transformers", "compressed-tensors", "hyocr-vllm"
"""Packages that matter beside vLLM."""
LARGEST_FP8 = 448.0
BATCHED_TOKENS = 8192
"""Tokens of all requests that one step takes, and so of all pages that it encodes together; vLLM's own default."""
CACHE_BLOCK = 128
"""Tokens that vLLM's largest block of keys and values holds; a page leaves one of them half empty."""
LEAST_SHARE = 0.01
"""Of the memory, that vLLM wants to see free where it is told the bytes itself."""


def beside(path: Path) -> Any:
    """A module of hyocr that stands alone too."""
    spec: Any = spec_from_file_location(path.stem, path)
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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


def patch() -> None:
    """Put right what vLLM and Transformers of these versions get wrong with this architecture."""
    beside(OLDER_TRANSFORMERS).use_pil_image_processor()
    from vllm.platforms import current_platform  # type: ignore[import-not-found,unused-ignore]

    if current_platform.is_cpu():
        make_inputs_contiguous()
        if os.environ.get("HYOCR_FP8_EMU") == "1":
            emulate_fp8()


def cache_bytes(checkpoint: str, tokens: int) -> int:
    """What the keys and values of so many tokens take."""
    config = json.loads(Path(checkpoint, "config.json").read_text(encoding="utf-8"))
    text = config.get("text_config", config)
    width = 4 if "float32" in (config.get("dtype"), config.get("torch_dtype")) else 2
    heads = text["num_key_value_heads"] * (text.get("head_dim") or text["attention_head_dim"])
    return int(2 * text["num_hidden_layers"] * heads * width * tokens)


def make_room(checkpoint: str, max_tokens: int) -> None:
    """Let the CPU build keep keys and values of one whole page at least, which it otherwise refuses to promise."""
    os.environ["VLLM_CPU_KVCACHE_SPACE"] = str(math.ceil(cache_bytes(checkpoint, max_tokens) / 2**30 * 1.1))


def load(checkpoint: str, max_tokens: int, at_once: int, *, fast: bool) -> Any:
    """vLLM without caches of pages: each is read once.

    If `fast`, it holds as many keys and values as the pages at once can have, whatever else is free: none of them
    waits for room, another server fits beside it, and what it holds tells of the checkpoint.
    """
    from vllm import LLM  # type: ignore[import-not-found,unused-ignore]
    from vllm.platforms import current_platform  # type: ignore[import-not-found,unused-ignore]

    room = {}
    if fast:
        held = cache_bytes(checkpoint, at_once * (max_tokens + 2 * CACHE_BLOCK))
        room = {"kv_cache_memory_bytes": held, "gpu_memory_utilization": LEAST_SHARE}
    return LLM(
        model=checkpoint,
        enforce_eager=current_platform.is_cpu() or not fast,
        max_model_len=max_tokens,
        max_num_batched_tokens=max(max_tokens, min(max_tokens * at_once, BATCHED_TOKENS)),
        max_num_seqs=at_once,
        limit_mm_per_prompt={"image": 1},
        enable_prefix_caching=False,
        mm_processor_cache_gb=0,
        max_logprobs=-1,
        seed=0,
        **room,
    )


def ask(engine: Any, request: dict[str, Any]) -> None:
    """Hand a request to vLLM, which reads it beside the others."""
    from PIL import Image
    from vllm import SamplingParams  # type: ignore[import-not-found,unused-ignore]

    params = SamplingParams(
        temperature=0.0,
        repetition_penalty=request.get("repetition_penalty", 1.0),
        max_tokens=request["max_tokens"],
        stop_token_ids=request.get("stop_token_ids"),
        detokenize=False,
        logprobs=-1 if request.get("logprobs") else None,
    )
    image = Image.open(io.BytesIO(base64.b64decode(request["image"])))
    prompt = {"prompt": request["prompt"], "multi_modal_data": {"image": image}}
    engine.add_request(str(request["number"]), prompt, params)


def answer(done: Any, *, times: list[float], logprobs: bool) -> dict[str, Any]:
    """What vLLM wrote for a request."""
    steps = done.outputs[0]
    told = {
        "number": int(done.request_id),
        "prompt": list(done.prompt_token_ids),
        "tokens": list(steps.token_ids),
        "ended": steps.finish_reason == "stop",
    }
    if times:
        told["times"] = times
    if logprobs:
        told["logprobs"] = [[step[token].logprob for token in range(len(step))] for step in steps.logprobs]
    return told


def read(engine: Any, requests: SimpleQueue[dict[str, Any] | None]) -> Iterator[dict[str, Any]]:
    """Read what comes until None does, beside what is being read already."""
    reading: dict[int, dict[str, Any]] = {}
    more, since = True, 0.0
    while more or reading:
        while more and not (reading and requests.empty()):
            request = requests.get()
            if request is None:
                more = False
                break
            since = since if reading else time.perf_counter()
            reading[request["number"]] = request
            ask(engine, request)
        for done in engine.step() if reading else ():
            if done.outputs[0].token_ids:
                reading[int(done.request_id)].setdefault("first", time.monotonic())
            if done.finished:
                request = reading.pop(int(done.request_id))
                now = time.perf_counter()
                times = [request["asked"], request["first"], time.monotonic()] if request.get("timed") else []
                told = answer(done, times=times, logprobs=request.get("logprobs", False))
                yield told | {"seconds": now - since}
                since = now


def take(requests: SimpleQueue[dict[str, Any] | None]) -> None:
    """Take the requests off stdin while vLLM reads."""
    for line in sys.stdin:
        requests.put(json.loads(line) | {"asked": time.monotonic()})
    requests.put(None)


def installed() -> dict[str, Any] | None:
    """The distribution that vLLM comes from, such as vllm-cpu, its version, and those beside it."""
    names = packages_distributions().get("vllm")
    if not names:
        return None
    versions = {}
    for name in BESIDE:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return {"distribution": names[0], "version": version(names[0]), "packages": versions}


def probe_forward() -> Any:
    """Whose forward models of vLLM compute here."""
    listed = os.environ.get("VLLM_PLUGINS")
    beside(OLDER_TRANSFORMERS).recompose_in_rotary()
    for entry in entry_points(group="vllm.general_plugins", name="hyocr"):
        if listed is None or entry.name in listed.split(","):
            entry.load()()
    return beside(FORWARD).probe()


def main() -> None:
    # Libraries print on stdout, where only answers may stand.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    if sys.argv[1:] == ["--installed"]:
        # The first line arrives even if the second takes too long or fails.
        found = installed()
        print(json.dumps(found), file=answers, flush=True)
        if found is not None:
            print(json.dumps(probe_forward()), file=answers, flush=True)
        return
    patch()
    checkpoint, max_tokens, at_once, *how = sys.argv[1:]
    if how != ["fast"]:
        make_room(checkpoint, int(max_tokens))
    llm = load(checkpoint, int(max_tokens), int(at_once), fast=how == ["fast"])
    requests: SimpleQueue[dict[str, Any] | None] = SimpleQueue()
    Thread(target=take, args=(requests,), daemon=True).start()
    for told in read(llm.llm_engine, requests):
        answers.write(json.dumps(told) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
