"""`hyocr bench` starts vLLM on one checkpoint after the other."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.clients.conftest import Quantize

LINES = 8


@pytest.mark.release
def test_two_checkpoints_in_vllm(quantize: Quantize, demo: Path, heldout: str, vllm_python: Path) -> None:
    int4 = quantize("gptq", "group_size=128")
    command: list[object] = ["bench", int4, "--baseline", demo, "--backend", "vllm", "--python", vllm_python]
    command += ["--data", heldout, "--num-samples", LINES, "--max-new-tokens", 64]
    command += ["--at-once", "1,8", "--repetitions", 3, "--json"]
    hyocr = Path(sys.executable).with_name("hyocr")
    done = subprocess.run(
        [hyocr, *map(str, command)], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout)
    for role in ("baseline", "model"):
        served = found[role]
        assert served["runtime"] == "vllm"
        assert served["memory_bytes"] > 5 * 10**8
        alone, together = served["levels"]
        assert min(together["pages_per_second"]) > max(alone["pages_per_second"]), "that is what a server is for"
        for level in served["levels"]:
            assert level["tokens"] > LINES
            assert all(each > 0 for each in (*level["first_token_seconds"], *level["token_seconds"]))
