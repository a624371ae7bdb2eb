"""llama.cpp, as `make llama` builds it, reads the GGUF files that the method `gguf` writes, started by hyocr."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hyocr_core.plugin.registry import installed_methods
from tests.conftest import REPO

if TYPE_CHECKING:
    from tests.clients.conftest import Quantize

LINES = 8
VERSION = re.search(r"^LLAMA_VERSION := (\S+)$", (REPO / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
assert VERSION is not None
BUILT = Path(os.environ.get("LLAMA", Path.home() / f".cache/hyocr/llama-cpp-python-{VERSION[1]}"))

pytestmark = [
    pytest.mark.skipif(not (BUILT / "bin/llama-server").is_file(), reason="no llama-server: `make llama` builds it"),
    pytest.mark.skipif(
        "gguf" not in {entry.name for entry in installed_methods()}, reason="hyocr-plugin-gguf is not installed"
    ),
]


@pytest.fixture(scope="module")
def q8(quantize: Quantize) -> Path:
    return quantize("gguf", "type=q8_0")


def hyocr(*arguments: object) -> Any:
    """The result of a command, as JSON; llama.cpp is on its PATH."""
    command = [str(Path(sys.executable).with_name("hyocr")), *map(str, arguments), "--json"]
    environment = os.environ | {"PATH": f"{BUILT / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def test_it_reads_as_the_same_weights_do_in_pytorch(q8: Path, heldout: str) -> None:
    """The demo was trained with Transformers' forward and llama.cpp has the reference's: both are read with that."""
    evaluated = ("eval", q8, "--data", heldout, "--num-samples", LINES)
    theirs = hyocr(*evaluated, "--backend", "llama.cpp")
    ours = hyocr(*evaluated)
    assert theirs["model"]["runtime"] == "llama.cpp"
    assert theirs["model"]["forward"] == ours["model"]["forward"] == "reference"
    same = sum(a["text"] == b["text"] for a, b in zip(theirs["pages"], ours["pages"], strict=True))
    assert same >= LINES // 2, "pages are resized in another way there"
    assert theirs["model"]["cer"] < 0.3


def test_verify_loads_it(q8: Path) -> None:
    loaded = hyocr("verify", q8, "--load", "llama.cpp")["load"]
    assert (loaded["outcome"], loaded["forward"]) == ("read", "reference")
    assert loaded["text"]


def test_its_speed_is_measured_beside_another(q8: Path, quantize: Quantize, heldout: str) -> None:
    load = ("--at-once", "1,4", "--turns", 1, "--max-new-tokens", 64, "--repetition-penalty", 1)
    f16 = quantize("gguf", "type=f16")
    found = hyocr(
        "bench", q8, "--baseline", f16, "--backend", "llama.cpp", "--data", heldout, "--num-samples", LINES, *load
    )
    for role in ("model", "baseline"):
        assert found[role]["memory_bytes"] > 10**7
        assert all(level["tokens"] > LINES for level in found[role]["levels"])
