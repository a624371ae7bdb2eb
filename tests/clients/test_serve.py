"""`hyocr eval` through a running `vllm serve` reads what it reads with vLLM in a process of its own."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx2
import pytest

from hyocr_core.runtimes.vllm_process import RUNNER

if TYPE_CHECKING:
    from tests.clients.conftest import Quantize

LINES = 6
SECONDS_TO_START = 300
# vLLM loads this in every process it starts. Of its CPU wheel, the command `vllm` wants a distribution named `vllm`.
PLUGIN = f"""
import importlib.util
spec = importlib.util.spec_from_file_location("vllm_runner", {str(RUNNER)!r})
runner = importlib.util.module_from_spec(spec)
def register():
    spec.loader.exec_module(runner)
    runner.patch()
"""
ENTRY_POINT = "[vllm.general_plugins]\nhyocr-serve = hyocr_serve:register\n"
VERSION = "Metadata-Version: 2.1\nName: vllm\nVersion: 0.32.0+cpu\n"
OPTIONS = ["--enforce-eager", "--max-model-len", "512", "--max-num-seqs", "8"]
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_CPU_KVCACHE_SPACE": "1"}


@pytest.fixture(scope="module")
def plugin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("plugin")
    (folder / "hyocr_serve.py").write_text(PLUGIN)
    info = folder / "vllm-0.32.0+cpu.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(VERSION)
    (info / "entry_points.txt").write_text(ENTRY_POINT)
    return folder


@contextmanager
def serve(python: Path, checkpoint: Path, plugin: Path, log: Path) -> Iterator[str]:
    """Run `vllm serve` and give the URL of its endpoint."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [python.with_name("vllm"), "serve", checkpoint.name, "--host", "127.0.0.1", "--port", str(port), *OPTIONS],
            cwd=checkpoint.parent,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=os.environ | ENVIRONMENT | {"PYTHONPATH": str(plugin)},
            start_new_session=True,
        )
    try:
        wait_for(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS_TO_START
    while time.monotonic() < deadline and process.poll() is None:
        try:
            httpx2.get(url, timeout=5, trust_env=False).raise_for_status()
        except httpx2.HTTPError:
            time.sleep(0.5)
        else:
            return
    pytest.fail(f"vllm serve does not answer: {log.read_text(errors='replace')[-4000:]}")


def evaluate(*arguments: object) -> Any:
    hyocr = Path(sys.executable).with_name("hyocr")
    command = [str(hyocr), "eval", *map(str, arguments), "--num-samples", str(LINES), "--json"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    assert "warning" not in done.stderr
    return json.loads(done.stdout)


def check_card(checkpoint: Path, url: str, page: Path, python: Path) -> None:
    """The card's two requests work as they are printed, but for the port, and say the same."""
    card = (checkpoint / "README.md").read_text(encoding="utf-8").replace("http://127.0.0.1:8000/v1", url)
    shell, program = (next(text for text in blocks(card, kind) if url in text) for kind in ("sh", "python"))
    folder = checkpoint.parent
    shutil.copyfile(page, folder / "page.png")
    asked = [
        subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout
        for command in (["bash", "-c", shell], [str(python), "-c", program])
    ]
    assert json.loads(asked[0])["choices"][0]["message"]["content"] == asked[1].removesuffix("\n") != ""


def blocks(card: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(("gptq", "group_size=128"), id="int4"),
        pytest.param((), id="bf16", marks=pytest.mark.release),
    ],
)
def test_a_running_server_reads_as_vllm_in_a_process_of_its_own(
    case: tuple[str, ...],
    demo: Path,
    heldout: str,
    quantize: Quantize,
    vllm_python: Path,
    plugin: Path,
    tmp_path: Path,
) -> None:
    checkpoint = quantize(*case) if case else demo
    with serve(vllm_python, checkpoint, plugin, tmp_path / "log.txt") as url:
        served = evaluate(checkpoint, "--data", heldout, "--backend", url)
        if case:
            check_card(checkpoint, url, Path(heldout).parent / "images/heldout-0000.png", vllm_python)
    own = evaluate(checkpoint, "--data", heldout, "--backend", "vllm", "--python", vllm_python)
    assert [result["model"]["runtime"] for result in (served, own)] == ["endpoint", "vllm"]
    assert len(own["pages"]) == LINES
    for name in ("name", "text", "errors"):
        assert [page[name] for page in served["pages"]] == [page[name] for page in own["pages"]]
    for name in ("cer", "tokens", "cut_pages"):
        assert served["model"][name] == own["model"][name]
    assert own["model"]["cer"] < 0.1, "it reads"
