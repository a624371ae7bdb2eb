"""llama.cpp reads the GGUF files that the method `gguf` writes, started by hyocr: out of its package, and as built."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
import torch
from PIL import Image

from hyocr_core.contract.backend import FORWARDS, Forward
from hyocr_core.contract.page_source import Record
from hyocr_core.models.load import load_model
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.prompts import chat
from hyocr_core.pages.samples import Sample, build_sample
from hyocr_core.plugin.registry import installed_methods
from hyocr_core.runtimes.chat_requests import chat_body, llama_fields
from hyocr_core.runtimes.llama_installed import PACKAGE, PROGRAM, find_llama_server
from hyocr_core.runtimes.llama_server import GgufFiles, LlamaServer
from tests.conftest import REPO

if TYPE_CHECKING:
    from tests.clients.conftest import Line, Quantize

LINES = 64
VERSION = re.search(r"^LLAMA_VERSION := (\S+)$", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
assert VERSION is not None
BUILT = Path(os.environ.get("LLAMA", Path.home() / f".cache/hyocr/llama-cpp-python-{VERSION[1]}")) / "bin"
WIDTH = 192
"""Pixels of a page that is narrower than the grid of positions, where PyTorch interpolates as llama.cpp does."""
STEPS = 24
VOCABULARY = 384

pytestmark = pytest.mark.skipif(
    "gguf" not in {entry.name for entry in installed_methods()}, reason="hyocr-plugin-gguf is not installed"
)


@pytest.fixture(scope="module", params=["package", "built"])
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    """Variables with which this llama.cpp is the one that is found."""
    folders = [folder for folder in os.get_exec_path() if not (Path(folder) / PROGRAM).exists()]
    if request.param == "built":
        if not (BUILT / PROGRAM).is_file():
            pytest.skip(f"no {BUILT / PROGRAM}: `make llama` builds it")
        folders.insert(0, str(BUILT))
    elif find_spec(PACKAGE) is None:
        pytest.skip(f"{PACKAGE} is not installed")
    return os.environ | {"PATH": os.pathsep.join(folders)}


@pytest.fixture(scope="module")
def f16(quantize: Quantize) -> Path:
    return quantize("gguf", "type=f16")


def hyocr(environment: Mapping[str, str], *arguments: object) -> Any:
    """The result of a command, as JSON."""
    command = [str(Path(sys.executable).with_name("hyocr")), *map(str, arguments), "--json"]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def ours(f16: Path, heldout: str) -> Any:
    return hyocr(os.environ, "eval", f16, "--data", heldout, "--num-samples", LINES)


def test_it_reads_as_the_same_weights_do_in_pytorch(
    f16: Path, heldout: str, ours: Any, environment: dict[str, str]
) -> None:
    theirs = hyocr(environment, "eval", f16, "--data", heldout, "--num-samples", LINES, "--backend", "llama.cpp")
    assert theirs["model"]["runtime"] == "llama.cpp"
    assert theirs["model"]["forward"] == ours["model"]["forward"] == "reference"
    same = sum(a["text"] == b["text"] for a, b in zip(theirs["pages"], ours["pages"], strict=True))
    assert same >= 0.97 * LINES
    assert theirs["model"]["cer"] < 0.01


def test_verify_loads_it(quantize: Quantize, environment: dict[str, str]) -> None:
    loaded = hyocr(environment, "verify", quantize("gguf", "type=q4_0"), "--load", "llama.cpp")["load"]
    assert (loaded["outcome"], loaded["forward"]) == ("read", "reference")
    assert loaded["text"] == loaded["page"]


def test_its_speed_is_measured_beside_another(
    f16: Path, quantize: Quantize, heldout: str, environment: dict[str, str]
) -> None:
    load = ("--at-once", "1,4", "--repetitions", 2, "--max-new-tokens", 64, "--repetition-penalty", 1)
    measured = ("bench", quantize("gguf", "type=q4_0"), "--baseline", f16, "--data", heldout, "--num-samples", 8)
    found = hyocr(environment, *measured, "--backend", "llama.cpp", *load)
    for role in ("model", "baseline"):
        assert found[role]["memory_bytes"] > 10**7
        assert all(level["tokens"] > 8 for level in found[role]["levels"])


@pytest.fixture
def server(f16: Path, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> Iterator[LlamaServer]:
    monkeypatch.setenv("PATH", environment["PATH"])
    with LlamaServer(find_llama_server(None), GgufFiles.of(f16), 512, at_once=1) as started:
        yield started


@dataclass(frozen=True)
class Written:
    """What was written of a page. logprobs: (tokens, vocabulary), of the step that chose each token."""

    tokens: list[int]
    logprobs: torch.Tensor


def test_logits_are_those_of_the_same_weights_in_pytorch(server: LlamaServer, f16: Path, lines: list[Line]) -> None:
    """Of the whole vocabulary. With Transformers' forward they are much farther away."""
    pages = [Record(line.image.name, line.question, None, partial(_narrow, line.image)) for line in lines[::2]]
    theirs = [_served(server, page) for page in pages]
    near, far = (_distance(f16, forward, pages, theirs) for forward in FORWARDS)
    assert near < 0.02
    assert far > 10 * near


def _narrow(path: Path) -> Image.Image:
    return Image.open(path).convert("RGB").crop((0, 0, WIDTH, 32))


def _served(server: LlamaServer, page: Record) -> Written:
    further = llama_fields(1, STEPS) | {"logprobs": True, "top_logprobs": VOCABULARY}
    body = chat_body("demo", chat(page, with_answer=False), page.open_image(), STEPS, further)
    answer = httpx2.post(f"{server.url}/chat/completions", json=body, timeout=60, trust_env=False).json()
    steps = answer["choices"][0]["logprobs"]["content"]
    logprobs = torch.full((len(steps), VOCABULARY), torch.nan)
    for row, step in zip(logprobs, steps, strict=True):
        for each in step["top_logprobs"]:
            row[each["id"]] = each["logprob"]
    return Written([step["id"] for step in steps], logprobs)


def _distance(folder: Path, forward: Forward, pages: list[Record], theirs: list[Written]) -> float:
    """Mean distance of log-probabilities in nats, as far as the same is written and a token on."""
    model: Any = load_model(folder, torch.device("cpu"), forward)
    model.float()
    processor = load_processor(folder)
    found = []
    for page, there in zip(pages, theirs, strict=True):
        here = _generated(model, build_sample(page, processor, with_answer=False))
        same = [a == b for a, b in zip(here.tokens, there.tokens, strict=False)]
        alike = [*same, False].index(False) + 1
        found.append((here.logprobs[:alike] - there.logprobs[:alike]).abs().mean())
    return float(torch.stack(found).mean())


@torch.inference_mode()
def _generated(model: Any, sample: Sample) -> Written:
    written = model.generate(
        **sample.inputs, do_sample=False, max_new_tokens=STEPS, output_logits=True, return_dict_in_generate=True
    )
    return Written(
        written.sequences[0, sample.prompt_tokens :].tolist(), torch.cat(written.logits).float().log_softmax(-1)
    )
