"""The memory that a run is said to need, held against what it holds in memory at the same time at least."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from hyocr_core.progress import Silent
from hyocr_core.resources import RUNTIME_BYTES
from hyocr_core.run import job
from hyocr_core.run.job import Job, estimate, prepare
from hyocr_core.settings.run_config import RunConfig

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

pytestmark = pytest.mark.needs_methods

TOKENS = 1_000_000


@pytest.fixture
def prepared(demo: Path, calib: str, tmp_path: Path) -> Callable[..., Job]:
    def make(method: str, **changes: Any) -> Job:
        given = {"model": str(demo), "output": tmp_path / "out", "method": method, "calib": calib, "device": "cpu"}
        return prepare(RunConfig(**(given | {"num_samples": 3} | changes)), Silent())

    return make


def memory(of: Job) -> int:
    found = estimate(of).memory
    assert found is not None
    return found - RUNTIME_BYTES


def block_weights(of: Job) -> int:
    """Bytes of the linears of the largest block, as they are stored in full precision."""
    sizes: dict[str, int] = {}
    for name, (outputs, inputs) in of.plan.quantized.items():
        block = ".".join(name.split(".")[:3])
        sizes[block] = sizes.get(block, 0) + 2 * outputs * inputs
    assert len(sizes) == 4
    return max(sizes.values())


def test_a_run_without_data_has_one_block_in_memory_as_weights_columns_and_codes(
    prepared: Callable[..., Job],
) -> None:
    of = prepared("rtn")
    weights = block_weights(of)
    # The weight in bf16, dequantized in bf16, and its columns in fp32 side by side with what is made of them.
    assert 4 * weights <= memory(of) <= 10 * weights


@pytest.mark.parametrize(("method", "times"), [("smoothquant", 1), ("fp8", 2)])
def test_samples_are_in_memory_unless_spilled(
    method: str,
    times: int,
    prepared: Callable[..., Job],
    demo_config: dict[str, Any],
    plugins: PluginFolder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Those of fp8 at the input of a block and, since it runs once, at its output."""
    monkeypatch.setattr(job, "sample_size", lambda *_arguments: (TOKENS, 0))
    plugins.distribution("smoothquant")
    kept, spilled = prepared(method), prepared(method, spill=True)
    samples = times * 3 * TOKENS * demo_config["text_config"]["hidden_size"] * 2
    assert memory(kept) >= samples + 4 * block_weights(kept)
    # What a block makes of one sample is in memory at any rate.
    assert memory(kept) - memory(spilled) == samples
    assert estimate(spilled).disk - estimate(kept).disk == samples


def test_groups_hold_more_of_a_sample_and_a_second_path_all_of_it_once_more(
    prepared: Callable[..., Job], demo_config: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "sample_size", lambda *_arguments: (TOKENS, 0))
    text = demo_config["text_config"]
    # The block's input, the outputs of attention and MLP once they are known, and the widest input of a linear.
    samples = 3 * TOKENS * (3 * text["hidden_size"] + text["intermediate_size"]) * 2
    plain = {"options": {"target_strength": 0}}
    one, two = (memory(prepared("gptq", **own)) - memory(prepared("gptq", spill=True, **own)) for own in (plain, {}))
    assert one == samples
    assert two == 2 * samples


def test_a_calibrated_run_has_all_but_the_linears_in_memory_before_its_first_block(
    prepared: Callable[..., Job],
) -> None:
    of = prepared("gptq", spill=True, options={"ignore": ["model.layers.[0-2].*", "*.down_proj"]})
    linears = {f"{name}.weight" for name in of.plan.quantized}
    front = sum(info.nbytes for name, info in of.reader.tensors.items() if name not in linears)
    assert front > 8 * sum(of.reader.tensors[name].nbytes for name in linears)
    assert memory(of) >= front
