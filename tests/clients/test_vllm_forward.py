"""vLLM computes the reference's forward with hyocr-vllm, and Transformers' without; the probe says which."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from hyocr_core.contract.backend import FORWARDS, Forward
from hyocr_core.models.load import load_model
from hyocr_core.runtimes.vllm_installed import find_vllm
from hyocr_core.runtimes.vllm_pair import SWITCH
from tests.clients.test_clients import assert_same_text, distance

if TYPE_CHECKING:
    from tests.clients.conftest import Answer, ReadWithTransformers, ReadWithVllm


@pytest.fixture(scope="module")
def expected(demo: Path, read_with_transformers: ReadWithTransformers) -> dict[Forward, list[Answer]]:
    return {forward: read_with_transformers(load_model(demo, torch.device("cpu"), forward)) for forward in FORWARDS}


@pytest.mark.parametrize("forward", FORWARDS)
def test_vllm_reads_by_the_forward_that_the_probe_names(
    forward: Forward,
    demo: Path,
    vllm_python: Path,
    read_with_vllm: ReadWithVllm,
    expected: dict[Forward, list[Answer]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SWITCH, forward)
    assert find_vllm(vllm_python).forward == forward
    found = read_with_vllm(demo)
    own, other = (distance(found, expected[each]) for each in (forward, *(set(FORWARDS) - {forward})))
    assert own.mean < other.mean / 3
    assert_same_text(found, expected[forward], own.largest)
