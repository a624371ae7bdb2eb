"""What a run learns from, through the whole job: the answers of its pages, and how much their tokens count."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from hyocr_core.errors import OutputError
from hyocr_core.evaluation.reading.generate import Runner
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source, select
from hyocr_core.plugin.method import Method
from hyocr_core.run.dry_run import plan_run
from hyocr_core.run.own_answers import answers_folder
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.terminal.plan_table import plan_tables

pytestmark = pytest.mark.needs_methods

SAMPLES = 6
Make = Callable[..., RunConfig]


@pytest.fixture
def run_config(demo: Path, calib: str, tmp_path: Path) -> Make:
    def make(output: str = "out", **changes: Any) -> RunConfig:
        given = {"model": str(demo), "output": tmp_path / output, "method": "gptq", "calib": calib}
        return RunConfig(**(given | {"num_samples": SAMPLES, "device": "cpu"} | changes))

    return make


@pytest.fixture
def token_counts(demo: Path, calib: str) -> list[tuple[int, int, int]]:
    """Image, prompt and answer tokens of each page that a run of SAMPLES uses."""
    processor = load_processor(demo)
    counts = []
    for record in select(open_source(calib), SAMPLES, 0):
        whole = build_sample(record, processor, with_answer=True).inputs["input_ids"][0]
        before = build_sample(record, processor, with_answer=False).inputs["input_ids"][0]
        image = int((whole == processor.image_token_id).sum())
        counts.append((image, len(before) - image, len(whole) - len(before)))
    return counts


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Tensor | None]]:
    """The weights that came with the samples of each block."""
    found: dict[str, list[Tensor | None]] = {}
    calibrate = Method.calibrate

    def spy(self: Method, block: Any, batches: Any, config: Any) -> Any:
        found[block.name] = [batch.weights for batch in batches]
        return calibrate(self, block, batches, config)

    monkeypatch.setattr(Method, "calibrate", spy)
    return found


def digest(run: RunConfig) -> str:
    return sha256((run.output / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("answers", ["data", "none"])
def test_balanced_kinds_weigh_the_same_in_every_block(
    answers: str, run_config: Make, seen: dict[str, list[Tensor | None]], token_counts: list[tuple[int, int, int]]
) -> None:
    quantize(run_config(answers=answers, options={"weighting": "balanced"}))
    kinds = 3 if answers == "data" else 2
    totals = [sum(counts[kind] for counts in token_counts) for kind in range(kinds)]
    assert len(seen) == 4
    for found in seen.values():
        for weights, counts in zip(found, token_counts, strict=True):
            assert weights is not None
            expected = sorted(sum(totals) / kinds / totals[kind] for kind in range(kinds) for _ in range(counts[kind]))
            assert sorted(weights.tolist()) == pytest.approx(expected)
    first = seen["model.layers.0"][0]
    assert first is not None
    assert len(set(first.tolist())) == kinds


def test_only_a_balanced_run_weighs_and_never_patches(run_config: Make, seen: dict[str, list[Tensor | None]]) -> None:
    quantize(run_config())
    assert all(weights is None for found in seen.values() for weights in found)
    options = {"weighting": "balanced", "quant_vit": True, "group_size": 64}
    quantize(run_config("vit", options=options))
    for name, found in seen.items():
        assert [weights is None for weights in found] == [name.startswith("vit.")] * SAMPLES


@pytest.mark.parametrize(
    ("method", "options"), [("gptq", {}), ("awq", {"search": "module", "n_grid": 2}), ("fp8", {"observer": "mse"})]
)
def test_weights_reach_the_result(method: str, options: dict[str, Any], run_config: Make) -> None:
    runs = [run_config(name, method=method, options=options | {"weighting": name}) for name in ("uniform", "balanced")]
    for run in runs:
        quantize(run)
    assert digest(runs[0]) != digest(runs[1])


def test_a_balanced_run_on_own_answers_resumes_to_the_same_bytes(
    run_config: Make, stop_in_block_2: Callable[[RunConfig], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    straight, broken = (
        run_config(name, method="awq", answers="generate", options={"weighting": "balanced", "n_grid": 2})
        for name in ("straight", "broken")
    )
    quantize(straight)
    stop_in_block_2(broken)
    monkeypatch.setattr(Runner, "generate", None)
    report = quantize(broken, resume=True)
    assert report.resumed_after_block == 1
    assert digest(broken) == digest(straight)


def test_answers_of_a_run(run_config: Make, token_counts: list[tuple[int, int, int]]) -> None:
    tokens, digests = {}, {}
    for answers in ("data", "none", "generate"):
        report = quantize(run_config(answers, answers=answers))
        assert report.calibration is not None
        assert report.calibration.answers == answers
        tokens[answers], digests[answers] = report.calibration.tokens, report.calibration.sha256
    assert tokens["data"] - tokens["none"] == sum(counts[2] for counts in token_counts)
    assert tokens["generate"] > tokens["none"]
    # The demo reads these six lines without an error.
    assert digests["generate"] == digests["data"] != digests["none"]


def test_ctrl_c_while_the_model_answers_leaves_a_resumable_run(
    run_config: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, generate = run_config(answers="generate"), Runner.generate
    monkeypatch.setattr("hyocr_core.run.own_answers.BATCH_PAGES", 2)

    def stop(self: Runner, prompts: Any) -> Any:
        if list(answers_folder().glob("*/*.json")):
            raise KeyboardInterrupt
        return generate(self, prompts)

    monkeypatch.setattr(Runner, "generate", stop)
    with pytest.raises(KeyboardInterrupt):
        quantize(run)
    kept = len(list(answers_folder().glob("*/*.json")))
    assert 0 < kept < SAMPLES
    monkeypatch.setattr(Runner, "generate", generate)
    report = quantize(run, resume=True)
    assert report.calibration is not None
    assert report.calibration.samples == SAMPLES


def test_the_whole_model_is_gone_before_the_blocks_come(run_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    calibrate = Method.calibrate
    held: list[int] = []

    def spy(self: Method, block: Any, batches: Any, config: Any) -> Any:
        parameters = (item for item in gc.get_objects() if type(item) is torch.nn.Parameter)
        held.append(sum(parameter.numel() for parameter in parameters if parameter.device.type == "cpu"))
        return calibrate(self, block, batches, config)

    monkeypatch.setattr(Method, "calibrate", spy)
    gc.collect()
    quantize(run_config("none", answers="none"))
    quantize(run_config("generate", answers="generate"))
    assert held[len(held) // 2 :] == held[: len(held) // 2]


def test_another_answer_refuses_to_resume(run_config: Make, stop_in_block_2: Callable[[RunConfig], None]) -> None:
    stop_in_block_2(run_config())
    with pytest.raises(OutputError, match=r"calibration\.answers: data -> none"):
        quantize(run_config(answers="none"), resume=True)


def test_a_dry_run_shows_the_answers_and_reads_none(run_config: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Runner, "generate", None)
    shown = {answers: plan_run(run_config(answers=answers)) for answers in ("data", "none", "generate")}
    calibrations = {answers: plan.calibration for answers, plan in shown.items()}
    assert [plan.answers for plan in calibrations.values() if plan] == ["data", "none", "generate"]
    tokens = {answers: plan.tokens for answers, plan in calibrations.items() if plan}
    assert tokens["data"] > tokens["none"] == tokens["generate"]
    assert "not counted: the model's answers" in shown["generate"].time.how
    memory = {answers: plan.resources.memory for answers, plan in shown.items()}
    assert memory["generate"] > memory["none"]  # type: ignore[operator]
    cell = next(iter(plan_tables(shown["generate"])[2].columns[1].cells))
    assert str(cell).endswith(f"{tokens['none']} tokens and the answers that the model writes")
    assert json.loads(shown["none"].model_dump_json())["calibration"]["answers"] == "none"
