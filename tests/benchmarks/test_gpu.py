"""The GPU benchmark can be run where there is no GPU, and no part's failure costs another's result."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from from_checkout import checkout_environment
from gpu import Bench, Found, LeftOut, measure, table

pytestmark = pytest.mark.needs_methods

SCRIPT = Path(__file__).parents[2] / "benchmarks/gpu.py"


def bench(folder: Path, seconds: float = 60) -> Bench:
    return Bench("cpu", True, 2, folder, dict(os.environ), time.monotonic() + seconds)


def test_it_runs_on_the_cpu_in_small(tmp_path: Path) -> None:
    file = tmp_path / "gpu.json"
    parts = [word for name in ("codes", "gptq", "eval") for word in ("--part", name)]
    command = [sys.executable, str(SCRIPT), "--device", "cpu", "--small", "--json", str(file), *parts]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(file.read_text())["parts"]
    assert [part["ok"] for part in found.values()] == [True] * 3, found
    assert {problem["equal"] for problem in found["codes"].values() if isinstance(problem, dict)} == {1}
    assert {"vision", "calibrate", "quantize"} <= found["gptq"]["phases"].keys()
    assert found["gptq"]["peak_rss_bytes"] > found["gptq"]["tokens"] > 0
    assert found["eval"]["tokens_per_second"] > 0
    assert "| gptq |" in done.stdout


def test_a_part_that_fails_is_noted_and_the_rest_goes_on(tmp_path: Path) -> None:
    def broken(_bench: Bench) -> Found:
        raise RuntimeError("CUDA error:\n  an illegal memory access")

    def missing(_bench: Bench) -> Found:
        raise LeftOut("vLLM is not installed")

    noted: list[int] = []
    parts = {"first": broken, "second": missing, "third": lambda _bench: {"seconds": 1.0, "phases": {"quantize": 1.0}}}
    found = measure(bench(tmp_path), parts, lambda known: noted.append(len(known)))
    assert noted == [1, 2, 3]
    assert [part["ok"] for part in found.values()] == [False, None, True]
    shown = table(found).splitlines()[2:]
    assert "failed: RuntimeError: CUDA error: an illegal memory access" in shown[0]
    assert "left out: vLLM is not installed" in shown[1]
    assert "quantize 1.0 s" in shown[2]


def test_a_command_that_fails_says_its_last_line(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="ended with 3: it is broken"):
        bench(tmp_path).run([sys.executable, "-c", "import sys; print('it is broken', file=sys.stderr); sys.exit(3)"])


def test_parts_that_find_no_time_are_left_out(tmp_path: Path) -> None:
    found = measure(bench(tmp_path, seconds=1), {"late": lambda _bench: {}}, lambda _found: None)
    assert found["late"]["left_out"] == "no time left"


def test_a_checkout_finds_its_methods_without_being_installed(tmp_path: Path) -> None:
    environment = checkout_environment(tmp_path, tmp_path / "none")
    script = (
        "from importlib.metadata import entry_points as e; print(*sorted({p.name for p in e(group='hyocr.methods')}))"
    )
    command = [sys.executable, "-S", "-c", script]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["awq", "fp8", "gguf", "gptq", "rtn"]
