"""What is measured of each group, beside the divergence that its quantization really makes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.overlaid import OverlaidCheckpoint
from hyocr_core.contract.types import Batches, Block, Layer, Stats
from hyocr_core.evaluation.scores.divergence import divergence
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.predicted import predict
from hyocr_core.pages.samples import build_sample
from hyocr_core.progress import Silent
from hyocr_core.run import blocks
from hyocr_core.run.job import Job
from hyocr_core.run.shares import Share
from hyocr_core.search import block_changes
from hyocr_core.search.candidates import Group
from hyocr_core.search.search_config import SearchConfig
from hyocr_core.search.search_plan import SearchPlan, plan_search
from hyocr_core.search.search_record import Effect, SearchRecord, group_name
from hyocr_core.search.sensitivity import Sensitivity

pytestmark = pytest.mark.needs_methods

Effects = dict[str, dict[str, Effect]]


def measured(plan: SearchPlan, folder: Path, record: SearchRecord | None = None) -> Effects:
    folder.mkdir(exist_ok=True)
    return Sensitivity(plan, folder, Journal.start(folder / "journal.json", {}, record or SearchRecord())).measure()


def really(plan: SearchPlan, group: Group, candidate: str) -> float:
    """KL per answer token with this group alone rounded to nearest, in fp32."""
    job, share = plan.job, next(each.share for each in plan.candidates if each.name == candidate)
    tensors = {}
    for name in group:
        weight = job.reader.read([f"{name}.weight"])[f"{name}.weight"]
        tensors[f"{name}.weight"] = _rounded(share, name, weight)
    other = HunYuanVL(OverlaidCheckpoint(job.reader, tensors), job.model.device, job.model.forward)
    total, count = 0.0, 0
    for record in job.records[plan.calibrated :]:
        sample = build_sample(record, job.processor, with_answer=True)
        rows = slice(sample.prompt_tokens - 1, -1)
        before, after = (predict(model, sample.inputs)[rows] for model in (job.model, other))
        kl = divergence(before, after).kl
        total, count = total + float(kl.double().sum()), count + len(kl)
    return total / count


def _rounded(share: Share, name: str, weight: torch.Tensor) -> torch.Tensor:
    return share.method.quantize_layer(Layer(name, weight), None, share.options[name]).dequantized


@pytest.fixture(scope="module")
def found(tiny: Path, calib: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchPlan, Effects]:
    """A random model in fp32, its vision tower too, measured with many draws."""
    folder = tmp_path_factory.mktemp("sensitivity")
    config = SearchConfig(
        model=str(tiny),
        data=calib,
        output=folder / "recipe.yaml",
        kl=1.0,
        candidates=("rtn group_size=64 bits=8", "none"),
        vision=True,
        num_samples=1,
        scored_samples=2,
        draws=64,
        device="cpu",
    )
    plan = plan_search(config, Silent())
    return plan, measured(plan, folder / "state")


def test_what_is_measured_is_the_divergence_to_second_order(found: tuple[SearchPlan, Effects]) -> None:
    plan, effects = found
    name = "rtn group_size=64 bits=8"
    groups = [group for group, sizes in plan.nbytes.items() if name in sizes]
    assert {group_name(group) for group in groups} == set(effects)
    vision = [group for group in groups if group[0].startswith("vit")]
    decoder = [group for group in groups if group not in vision]
    assert vision
    for group in (vision[0], vision[-1], decoder[0], decoder[-1], decoder[3]):
        # 128 squares of normal numbers scatter by an eighth.
        assert effects[group_name(group)][name].kl == pytest.approx(really(plan, group, name), rel=0.4), group


def test_a_killed_pass_goes_on_to_the_same_numbers(
    configured: Callable[..., SearchConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_search(configured(kl=1.0), Silent())
    straight = measured(plan, tmp_path / "straight")
    calls: list[int] = []
    step = Sensitivity._measure_block

    def killed(self: Sensitivity, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return step(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Sensitivity, "_measure_block", killed)
    folder = tmp_path / "killed"
    folder.mkdir()
    journal = Journal.start(folder / "journal.json", {}, SearchRecord())
    with pytest.raises(KeyboardInterrupt):
        Sensitivity(plan, folder, journal).measure()
    resumed = Journal.resume(folder / "journal.json", {}, SearchRecord)
    assert len(resumed.record.measured) == 2
    monkeypatch.setattr(Sensitivity, "_step", None)
    assert Sensitivity(plan, folder, resumed).measure() == straight
    # Two blocks before the kill, and the one that was killed again.
    assert len(calls) == 3 + 2
    assert [path.name for path in folder.iterdir()] == ["journal.json"]


def test_candidates_that_learn_alike_learn_once_and_are_measured_as_if_each_did(
    configured: Callable[..., SearchConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    candidates = ("gptq group_size=64", "gptq group_size=32 desc_act=false", "gptq weighting=balanced", "none")
    plan = plan_search(configured(kl=1.0, candidates=candidates), Silent())
    learned: list[str] = []

    def learn(job: Job, share: Share, block: Block, batches: Batches) -> dict[str, Stats]:
        learned.append(next(iter(block.layers)))
        return blocks.learn(job, share, block, batches)

    monkeypatch.setattr(block_changes, "learn", learn)
    together = measured(plan, tmp_path / "together")
    # What tokens weigh is of the statistics.
    assert all(learned.count(name) == 2 for name in learned)
    learned.clear()
    monkeypatch.setattr(block_changes, "_learns_as", lambda candidate, _group: candidate.name)
    assert measured(plan, tmp_path / "apart") == together
    assert all(learned.count(name) == 3 for name in learned)
