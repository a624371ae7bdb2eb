"""Quantized checkpoints of the demo model, and the two clients that read with them: vLLM and Transformers."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from hyocr_core.runtimes.vllm_process import RUNNER

ROOT = Path(__file__).parents[2]
VLLM_PYTHON = ROOT / ".venv-vllm/bin/python"
EVERY = 16  # of the held-out lines, so that there are 32
READ = 16


@dataclass(frozen=True)
class Answer:
    """What a client wrote for one line. logprobs: (tokens, vocabulary), of the step that chose each token."""

    prompt: list[int]
    tokens: list[int]
    logprobs: NDArray[np.float32]


@dataclass(frozen=True)
class Line:
    image: Path
    question: str

    @property
    def messages(self) -> list[dict[str, Any]]:
        content = [{"type": "image", "image": str(self.image)}, {"type": "text", "text": self.question}]
        return [{"role": "system", "content": ""}, {"role": "user", "content": content}]


Quantize = Callable[..., Path]
RunVllm = Callable[..., "subprocess.CompletedProcess[str]"]
ReadWithVllm = Callable[..., list[Answer]]
ReadWithTransformers = Callable[[Any], list[Answer]]


@pytest.fixture(scope="session")
def lines(many_lines: list[Line]) -> list[Line]:
    """Half of them, for what takes long."""
    return many_lines[:: len(many_lines) // READ]


@pytest.fixture(scope="session")
def many_lines(heldout: str) -> list[Line]:
    """Some held-out lines, spread over the whole set."""
    rows = [json.loads(row) for row in Path(heldout).read_text(encoding="utf-8").splitlines()]
    return [Line(Path(heldout).parent / row["img_path"], row["question"]) for row in rows[::EVERY]]


@pytest.fixture(scope="session")
def quantize(demo: Path, calib: str, tmp_path_factory: pytest.TempPathFactory) -> Quantize:
    """Quantize the demo checkpoint as a user does; the same options give the same folder."""
    made: dict[tuple[str, ...], Path] = {}

    def run(method: str, *options: str) -> Path:
        """Also `recipe` with a rule in each of the options."""
        key = (method, *options)
        if key not in made:
            output = tmp_path_factory.mktemp("quantized") / "checkpoint"
            command = [str(Path(sys.executable).with_name("hyocr")), "quant"]
            if method == "recipe":
                rules = output.with_name("recipe.yaml")
                rules.write_text("".join(f"- {rule}\n" for rule in options), encoding="utf-8")
                command += ["--recipe", str(rules)]
            else:
                command += ["--method", method]
            command += ["--num-samples", "32", "--model", str(demo), "--calib", calib, "--output", str(output)]
            for option in options if method != "recipe" else ():
                command += ["--override" if ":" in option else "-o", option]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
            made[key] = output
        return made[key]

    return run


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    if not VLLM_PYTHON.is_file():
        pytest.skip("no .venv-vllm: `make clients` makes it")
    return VLLM_PYTHON


@pytest.fixture(scope="session")
def run_vllm(vllm_python: Path, demo: Path, lines: list[Line]) -> RunVllm:
    """Read the lines with a checkpoint in vLLM's CPU build; the finished process, which may have failed."""
    from transformers import HunYuanVLProcessor

    processor = HunYuanVLProcessor.from_pretrained(demo)
    requests = [
        {
            "number": number,
            "prompt": processor.apply_chat_template(line.messages, add_generation_prompt=True),
            "image": base64.b64encode(line.image.read_bytes()).decode(),
            "max_tokens": 64,
            "logprobs": True,
        }
        for number, line in enumerate(lines)
    ]

    def run(checkpoint: Path, *, emulate_fp8: bool = False) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [vllm_python, RUNNER, checkpoint, "512", "1"],
            input="".join(f"{json.dumps(request)}\n" for request in requests),
            capture_output=True,
            # Threads that wait for each other starve when another job holds their core.
            env=os.environ | {"OMP_NUM_THREADS": "1", "HYOCR_FP8_EMU": "1" if emulate_fp8 else "0"},
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="session")
def read_with_vllm(run_vllm: RunVllm) -> ReadWithVllm:
    """Read the lines with a checkpoint in vLLM's CPU build."""

    def read(checkpoint: Path, *, emulate_fp8: bool = False) -> list[Answer]:
        done = run_vllm(checkpoint, emulate_fp8=emulate_fp8)
        assert done.returncode == 0, done.stderr[-4000:]
        answers = [json.loads(line) for line in done.stdout.splitlines()]
        return [
            Answer(answer["prompt"], answer["tokens"], np.array(answer["logprobs"], np.float32)) for answer in answers
        ]

    return read


@pytest.fixture(scope="session")
def read_with_transformers(demo: Path, lines: list[Line]) -> ReadWithTransformers:
    """Read the lines with a model in Transformers, greedily."""
    from transformers import GenerationConfig, HunYuanVLProcessor

    processor = HunYuanVLProcessor.from_pretrained(demo)
    settings = GenerationConfig.from_pretrained(demo, output_logits=True, return_dict_in_generate=True)

    def read(model: Any) -> list[Answer]:
        return [_read_line(model, processor, settings, line) for line in lines]

    return read


@torch.inference_mode()
def _read_line(model: Any, processor: Any, settings: Any, line: Line) -> Answer:
    inputs = processor.apply_chat_template(
        line.messages,
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    )
    output = model.generate(**inputs, generation_config=settings)
    prompt = inputs["input_ids"][0].tolist()
    logprobs = torch.cat(output.logits).float().log_softmax(-1).numpy()
    return Answer(prompt, output.sequences[0, len(prompt) :].tolist(), logprobs)
