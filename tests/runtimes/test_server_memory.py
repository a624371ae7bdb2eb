"""What processes hold, and which of them wait at a URL."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hyocr_core.runtimes.server_memory import Held, gpu_bytes, listening, watching, with_children

MEBIBYTES = 64
HOLDS = f"""
import subprocess, sys, time
if len(sys.argv) > 1:
    child = subprocess.Popen([sys.executable, "-c", sys.argv[1]])
held = b"x" * ({MEBIBYTES} << 20)
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def family() -> Iterator[subprocess.Popen[str]]:
    """A process that holds MEBIBYTES and one that it started, which does too."""
    running = subprocess.Popen([sys.executable, "-c", HOLDS, HOLDS], stdout=subprocess.PIPE, text=True)
    assert running.stdout is not None
    assert [running.stdout.readline().strip() for _ in range(2)] == ["held", "held"]
    yield running
    for process in with_children([running.pid]):
        process.kill()
    running.wait()
    running.stdout.close()


def test_what_all_of_a_family_hold_at_most(family: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hyocr_core.runtimes.server_memory.SECONDS_BETWEEN", 0.02)
    held = Held()
    with watching([family.pid], held):
        time.sleep(0.1)
    most = held.memory
    assert most is not None
    assert 2 * MEBIBYTES << 20 <= most <= 2 * (MEBIBYTES + 40) << 20
    for process in with_children([family.pid])[1:]:
        process.kill()
    with watching([family.pid], held):
        time.sleep(0.1)
    assert held.memory == most, "what was most counts"


def test_of_what_is_elsewhere_nothing_is_known() -> None:
    held = Held()
    with watching([], held):
        pass
    assert held == Held(None, None)


def test_the_gpu_as_nvidia_smi_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of others, and of a driver that does not say, count nothing."""
    program = tmp_path / "nvidia-smi"
    program.write_text(f"#!/bin/sh\necho '{os.getpid()}, 1024'\necho '{os.getpid()}, [N/A]'\necho '1, 4096'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert gpu_bytes(with_children([os.getpid()])) == 1024 << 20
    assert gpu_bytes([]) is None
    program.write_text("#!/bin/sh\nexit 9\n")
    assert gpu_bytes(with_children([os.getpid()])) is None


def test_who_waits_at_a_url() -> None:
    with socket.socket() as waiting:
        waiting.bind(("127.0.0.1", 0))
        port = waiting.getsockname()[1]
        assert listening(f"http://127.0.0.1:{port}/v1") == []
        waiting.listen()
        for host in ("127.0.0.1", "localhost"):
            assert listening(f"http://{host}:{port}/v1") == [os.getpid()]
        assert listening(f"http://example.org:{port}/v1") == []
