"""vLLM reads several pages at once as it reads them one by one, with the Transformers that keeps them apart."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image

from hyocr_core.pages.processor import load_processor
from hyocr_core.runtimes.vllm_installed import find_vllm
from hyocr_core.runtimes.vllm_pair import SWITCH
from hyocr_core.runtimes.vllm_process import VllmProcess, VllmRequest

if TYPE_CHECKING:
    from tests.clients.conftest import Line, Quantize

PAGES, AT_ONCE = 32, 8
WIDTHS = (256, 288, 320, 384)
CASES = [
    pytest.param(("gptq", "group_size=128"), id="int4"),
    pytest.param((), id="bf16", marks=pytest.mark.release),
    pytest.param(("fp8", "activation_scheme=dynamic"), id="fp8", marks=pytest.mark.release),
]


@pytest.fixture(scope="module")
def requests(demo: Path, many_lines: list[Line]) -> list[VllmRequest]:
    """Held-out lines on pages of four sizes."""
    processor = load_processor(demo)
    made = []
    for number, line in enumerate(many_lines[:PAGES]):
        page = Image.new("RGB", (WIDTHS[number % len(WIDTHS)], 32), "white")
        page.paste(Image.open(line.image).convert("RGB"))
        prompt = processor.apply_chat_template(line.messages, add_generation_prompt=True)
        made.append(VllmRequest(prompt, page, 64))
    assert len({request.image.size for request in made}) == len(WIDTHS)
    return made


@pytest.fixture(scope="module")
def read(requests: list[VllmRequest]) -> Callable[..., list[tuple[int, ...]]]:
    """Read all pages, and give the tokens of each."""

    def run(python: Path, checkpoint: Path, at_once: int) -> list[tuple[int, ...]]:
        with VllmProcess(checkpoint, python, 512, at_once) as vllm:
            answers = sorted(vllm.read(requests), key=lambda answer: answer.number)
        return [answer.tokens for answer in answers]

    return run


@pytest.fixture(scope="module")
def unsound_python(vllm_python: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of the same vLLM beside the Transformers of `UNSOUND` in the Makefile."""
    older = vllm_python.parents[1] / "unsound"
    assert older.is_dir(), "`make clients` makes it"
    script = tmp_path_factory.mktemp("unsound") / "python"
    script.write_text(f'#!/bin/sh\nPYTHONPATH={older} exec {vllm_python} "$@"\n')
    script.chmod(0o755)
    return script


@pytest.mark.parametrize("case", CASES)
def test_pages_of_four_sizes_read_at_once_as_one_by_one(
    case: tuple[str, ...],
    demo: Path,
    quantize: Quantize,
    vllm_python: Path,
    read: Callable[..., list[tuple[int, ...]]],
) -> None:
    checkpoint = quantize(*case) if case else demo
    assert find_vllm(vllm_python).pair.sound
    alone, together = (read(vllm_python, checkpoint, at_once) for at_once in (1, AT_ONCE))
    assert len(set(alone)) > PAGES // 2, "pages that are mixed up would be seen"
    assert together == alone


def test_versions_that_mix_up_pages_are_found_out(
    demo: Path,
    heldout: str,
    quantize: Quantize,
    unsound_python: Path,
    read: Callable[..., list[tuple[int, ...]]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They do mix them up, `verify` sees that by reading and says what to install, and `eval` reads one by one."""
    monkeypatch.setenv(SWITCH, "transformers")  # hyocr-vllm would mend them
    pair = find_vllm(unsound_python).pair
    assert not pair.sound
    assert read(unsound_python, demo, AT_ONCE) != read(unsound_python, demo, 1)
    remedy = "pip install 'transformers>=5.20.1,<5.21' beside vLLM"
    verified = hyocr("verify", quantize("gptq", "group_size=128"), "--load", "vllm", "--python", unsound_python)
    assert verified.returncode == 1
    assert f"fault: {pair}: " in verified.stdout
    assert f"trial pages read otherwise at once than one by one: {remedy}" in verified.stdout
    arguments = ("eval", demo, "--data", heldout, "--num-samples", 4, "--backend", "vllm", "--python", unsound_python)
    refused = hyocr(*arguments, "--batch-size", 4)
    assert refused.returncode == 2
    assert f"{pair} mixes up pages that it encodes together: {remedy}" in refused.stderr
    done = hyocr(*arguments)
    assert done.returncode == 0, done.stderr[-4000:]
    assert f"one page at a time: {pair} mixes up pages" in done.stderr


def test_hyocr_vllm_mends_them(
    demo: Path, unsound_python: Path, read: Callable[..., list[tuple[int, ...]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SWITCH, raising=False)
    assert find_vllm(unsound_python).pair.sound
    assert read(unsound_python, demo, AT_ONCE) == read(unsound_python, demo, 1)


def test_sound_versions_pass_verification(demo: Path, quantize: Quantize, vllm_python: Path) -> None:
    verified = hyocr("verify", quantize("gptq", "group_size=128"), "--load", "vllm", "--python", vllm_python)
    assert verified.returncode == 0, verified.stdout
    assert "8 trial pages read the same at once as one by one" in verified.stdout


def hyocr(*arguments: Any) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("hyocr")), *map(str, arguments)]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
