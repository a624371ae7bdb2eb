"""The fused loop over columns gives the codes of the plain one; on the CPU by Triton's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hyocr_core.kit.solver import can_fuse
from tests.kit.fused_cases import CASES

REPO = Path(__file__).parents[2]


def test_the_codes_are_those_of_the_plain_loop() -> None:
    pytest.importorskip("triton", reason="the kernel is Triton's")
    # Read when Triton is imported, which this process may have done by now.
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join([str(REPO), *sys.path])}
    command = [sys.executable, "-m", "tests.kit.fused_cases"]
    done = subprocess.run(command, env=environment, cwd=REPO, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    rows = [list(map(int, line.split())) for line in done.stdout.splitlines()]
    assert [differing for differing, _, _ in rows] == [0] * len(CASES)
    assert all(moved > 0 for _, moved, _ in rows[:3]), "no error was made up for"
    assert not any(written for _, _, written in rows)


def test_only_a_gpu_of_nvidia_is_given_the_kernel() -> None:
    assert not can_fuse(torch.device("cpu"))
    assert not can_fuse(torch.device("meta"))
