"""Whole runs on a device that is not the CPU: the same bytes as on the CPU, and the host seldom waits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hyocr_core.evaluation.evaluate import evaluate
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.testing.jobs import file_digests
from hyocr_core.testing.stand_in import stand_in
from hyocr_core.testing.tiny import PAGES, shared_checkpoint

pytestmark = pytest.mark.needs_methods

LAYERS = 14
"""Linears of the tiny model's decoder."""

PER_LAYER = {"rtn": 18, "gptq": 28, "awq": 47, "fp8": 28}
"""How often the host may wait for the device at most; of it, four times for the tensors that are written."""

PER_PAGE = 8
"""How often it waits for a page on its way to the decoder and to the disk; a block has four groups of layers."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return shared_checkpoint(tmp_path_factory.getbasetemp())


@pytest.fixture(scope="module")
def run(
    checkpoint: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., tuple[dict[str, str], Counter[str]]]:
    """Quantize on a device: digests of what was written, without the card, which has the folder's name; and waits."""

    @cache
    def quantized(method: str, device: str, **settings: Any) -> tuple[dict[str, str], Counter[str]]:
        output = tmp_path_factory.mktemp(f"{method}-{device}") / "out"
        given = {"model": str(checkpoint), "method": method, "output": output, "calib": PAGES, "num_samples": 2}
        options = {"quant_vit": settings.pop("quant_vit", False)}
        run = RunConfig(**(given | settings), options=options, device="cpu")
        with stand_in() as sim:
            quantize(run.model_copy(update={"device": device}))
        return file_digests(output), sim.waits

    return quantized


@pytest.mark.parametrize("method", list(PER_LAYER))
def test_a_device_gives_the_bytes_of_the_cpu_and_is_seldom_waited_for(method: str, run: Any) -> None:
    expected, none = run(method, "cpu")
    found, waits = run(method, "sim")
    assert found == expected
    assert not none
    assert LAYERS < waits.total() <= PER_LAYER[method] * LAYERS, waits


def test_so_does_a_quantized_vision_tower(run: Any) -> None:
    assert run("rtn", "sim", quant_vit=True)[0] == run("rtn", "cpu", quant_vit=True)[0]


def test_so_do_samples_on_the_disk(run: Any) -> None:
    assert run("fp8", "sim", spill=True)[0] == run("fp8", "cpu")[0]


def test_the_decoder_takes_more_pages_without_waiting_more_often(run: Any) -> None:
    few, more = (run("fp8", "sim", num_samples=pages)[1].total() for pages in (2, 4))
    assert more - few <= 2 * PER_PAGE


def test_an_evaluation_on_a_device_reads_what_the_cpu_reads(checkpoint: Path) -> None:
    def read(device: str) -> EvalResult:
        config = EvalConfig(
            model=str(checkpoint), baseline=str(checkpoint), data=PAGES, num_samples=2, max_new_tokens=8, device="cpu"
        )
        with stand_in():
            return evaluate(config.model_copy(update={"device": device}))

    expected, found = read("cpu"), read("sim")
    assert found.environment["device"] == "sim"
    assert [page.text for page in found.pages] == [page.text for page in expected.pages]
    assert found.comparison == expected.comparison
