"""A dry run says what the run will do, refuses what it would refuse, and leaves no trace."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch.utils.flop_counter import FlopCounterMode

from hyocr_core.checkpoint.writer import StagedCheckpoint, stage_folder
from hyocr_core.errors import CalibrationError, CheckpointError, ConfigError, HyocrError, MethodError, OutputError
from hyocr_core.models.load import load_model
from hyocr_core.pages.samples import iter_samples
from hyocr_core.plugin.method import Method
from hyocr_core.progress import Silent
from hyocr_core.run.dry_run import DryRun, plan_run
from hyocr_core.run.job import prepare
from hyocr_core.run.quantize import quantize
from hyocr_core.run.workload import Size, forward_work
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.terminal.plan_table import plan_tables, total_size

pytestmark = pytest.mark.needs_methods

Run = Callable[..., RunConfig]


@pytest.fixture
def run(demo: Path, calib: str, tmp_path: Path) -> Run:
    def make(method: str = "gptq", **more: Any) -> RunConfig:
        options = more.pop("options", {})
        data = {"model": str(demo), "output": tmp_path / "out", "calib": calib, "num_samples": 2, "device": "cpu"}
        return RunConfig(**{**data, **more}, method=method, options=options)

    return make


def written_bytes(folder: Path) -> dict[str, int]:
    """Bytes of the tensors of a checkpoint by part, by on-disk names alone."""
    sizes = dict.fromkeys(("decoder", "vision", "embeddings", "rest"), 0)
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                prefixes = (("model.layers.", "decoder"), ("vit.", "vision"), ("model.embed_tokens.", "embeddings"))
                part = next((part for prefix, part in prefixes if name.startswith(prefix)), "rest")
                sizes[part] += file.get_tensor(name).nbytes
    return sizes


@pytest.mark.parametrize(
    ("method", "options"),
    [
        ("gptq", {}),
        ("gptq", {"format": "compressed-tensors", "sym": False, "group_size": 64}),
        ("gptq", {"bits": 8, "group_size": -1}),
        ("gptq", {"quant_vit": True, "group_size": 64, "ignore": ["model.layers.1", "*.down_proj"]}),
        ("awq", {}),
        ("awq", {"bits": 8, "group_size": 32}),
        ("fp8", {}),
        ("fp8", {"format": "fp8"}),
        ("fp8", {"activation_scheme": "dynamic", "quant_vit": True}),
        ("gguf", {"codes": "nearest"}),
    ],
)
def test_predicted_sizes_are_the_written_ones(run: Run, demo: Path, method: str, options: dict[str, Any]) -> None:
    config = run(method, options=options)
    plan = plan_run(config)
    report = quantize(config)
    assert {row.part: row.before for row in plan.sizes} == written_bytes(demo)
    assert {row.part: row.after for row in plan.sizes} == written_bytes(config.output)
    total = total_size(plan)
    assert (total.before, total.after) == (report.weight_bytes_before, report.weight_bytes_after)
    assert sum(row.count for row in plan.linears if row.stored) == len(report.layers)
    assert sum(row.count for row in plan.linears if row.left) == len(report.ignored)
    assert (plan.calibration is None) == (report.calibration is None)
    if plan.calibration is not None and report.calibration is not None:
        assert plan.calibration.tokens == report.calibration.tokens


def test_every_linear_is_accounted_for_with_its_reason(run: Run) -> None:
    ignore = ["model.layers.0.mlp", "model.language_model.layers.1.self_attn.o_proj", "lm_head"]
    rows = {(row.part, row.count): row.stored or row.left for row in plan_run(run(options={"ignore": ignore})).linears}
    stored, vision = "int4, groups of 128, symmetric", "quant_vit is false"
    assert rows == {
        ("decoder q/k/v", 12): stored,
        ("decoder o", 3): stored,
        ("decoder o", 1): f"ignored by {ignore[1]}",
        ("decoder gate/up", 6): stored,
        ("decoder gate/up", 2): f"ignored by {ignore[0]}",
        ("decoder down", 3): stored,
        ("decoder down", 1): f"ignored by {ignore[0]}",
        ("vision q/k/v", 12): vision,
        ("vision o", 4): vision,
        ("vision fc1", 4): vision,
        ("vision fc2", 4): vision,
        ("vision merger", 1): vision,
        ("head", 1): "ignored by lm_head",
    }


def test_outer_blocks_are_left_for_their_own_reason(run: Run) -> None:
    rows = plan_run(run(options={"keep_ends": 1})).linears
    kept = {row.count for row in rows if row.left == "keep_ends keeps the outer blocks"}
    assert kept == {2, 4, 6}, "of o and down, gate/up, q/k/v"


def test_the_tied_head_is_left_for_its_own_reason(run: Run) -> None:
    (head,) = [row for row in plan_run(run("rtn")).linears if row.part == "head"]
    assert head.left == "shares the embedding's weight"


def test_a_plan_says_what_the_run_takes_and_which_runtimes_load_it(run: Run) -> None:
    plan = plan_run(run())
    assert plan.resources.memory is not None
    assert 0 < plan.resources.memory < plan.resources.memory_free
    assert 0 < plan.resources.disk < plan.resources.disk_free
    low, high = plan.time.seconds
    assert 0 < low < high
    assert "measured now" in plan.time.how
    assert [(found.name, found.loads) for found in plan.runtimes] == [
        ("vLLM CPU", "yes"),
        ("vLLM CUDA", "yes"),
        ("Transformers", "yes"),
    ]
    static = plan_run(run("fp8", options={"format": "fp8"}))
    assert [found.loads for found in static.runtimes] == ["no", "yes", "no"]
    assert all(found.why for found in static.runtimes if found.loads == "no")


def test_a_plan_survives_json(run: Run) -> None:
    plan = plan_run(run("rtn"))
    assert DryRun.model_validate_json(plan.model_dump_json()) == plan


def test_a_format_of_a_plugin_has_no_known_size(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Method, "checkpoint_config", lambda *_arguments: {"quant_method": "codebook"})
    plan = plan_run(run("rtn"))
    assert {row.stored for row in plan.linears} == {None, "as codebook does"}
    assert {row.part: row.after is None for row in plan.sizes} == {
        "decoder": True,
        "vision": False,
        "embeddings": False,
        "rest": False,
    }
    assert total_size(plan).after is None
    assert {found.loads for found in plan.runtimes} == {"unsure"}
    assert [len(table.rows) for table in plan_tables(plan)][:2] == [10, 5]


def test_forward_passes_are_counted_as_torch_counts_them(run: Run, demo: Path) -> None:
    job = prepare(run(num_samples=1, calib="synthetic:1"), Silent())
    sample: Any = next(iter(iter_samples(job.records, job.processor, with_answer=True)))
    model: Any = load_model(demo, torch.device("cpu"))
    model.set_attn_implementation("eager")

    def counted(work: Callable[[], object]) -> int:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            work()
        return int(counter.get_total_flops())

    images = sample.inputs["pixel_values"], sample.inputs["image_grid_thw"]
    vision = counted(lambda: model.model.get_image_features(*images))
    both = counted(lambda: model(**sample.inputs, logits_to_keep=1))
    size = Size(sample.inputs["input_ids"].shape[1], images[0].shape[0])
    work = forward_work(job, [size])
    # Twice the decoder, once the vision tower, but for the little convolutions around it.
    assert work.matmul + work.attention == pytest.approx(vision + 2 * (both - vision), rel=0.05)
    twice = forward_work(prepare(run(options={"quant_vit": True, "group_size": 64}), Silent()), [size, size])
    assert twice.matmul + twice.attention == pytest.approx(2 * 2 * both, rel=0.05)


def test_nothing_is_written_and_no_weight_is_read(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(*_arguments: Any) -> Any:
        raise AssertionError("weights are read")

    monkeypatch.setattr("hyocr_core.checkpoint.reader.CheckpointReader._iterate", read)
    plan_run(run(output=tmp_path / "deep" / "er"))
    assert list(tmp_path.iterdir()) == []


def refused(config: RunConfig, **more: Any) -> HyocrError:
    """The error of a dry run, after a check that the run itself ends with the same one."""
    with pytest.raises(HyocrError) as dry:
        plan_run(config, **more)
    with pytest.raises(HyocrError) as real:
        quantize(config, **more)
    assert type(dry.value) is type(real.value)
    assert str(dry.value) == str(real.value)
    assert dry.value.exit_code == 2
    return dry.value


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        ({"method": "gptk"}, MethodError),
        ({"options": {"group_sise": 64}}, ConfigError),
        ({"options": {"ignore": ["nothing"]}}, ConfigError),
        ({"options": {"ignore": ["*.q_proj"]}}, ConfigError),
        ({"method": "gptq", "options": {"sym": False}}, ConfigError),
        ({"model": "./nowhere"}, CheckpointError),
        ({"calib": "nowhere.jsonl"}, CalibrationError),
    ],
)
def test_a_bad_input_is_refused_as_by_the_run(run: Run, more: dict[str, Any], kind: type[HyocrError]) -> None:
    assert isinstance(refused(run(**more)), kind)


def test_pages_that_cannot_be_read_are_refused_as_by_the_run(run: Run, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    (pages / "page.png").write_bytes(b"no image")
    assert "1 of 1 samples cannot be used" in str(refused(run(calib=str(pages))))


def test_a_dead_norm_is_refused_as_by_the_run(run: Run, edited_demo: Callable[..., Path]) -> None:
    def kill(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.layers.1.input_layernorm.weight"][3] = 0

    message = str(refused(run("awq", model=str(edited_demo(kill)))))
    assert "model.layers.1.input_layernorm.weight is zero in channel 3" in message


def test_targets_are_refused_as_by_the_run(run: Run, tmp_path: Path) -> None:
    (tmp_path / "full" / "inside").mkdir(parents=True)
    (tmp_path / "file").write_text("mine")
    for output, message in (("full", "is not empty"), ("file", "is a file")):
        error = refused(run(output=tmp_path / output))
        assert isinstance(error, OutputError)
        assert message in str(error)
    assert "no unfinished run" in str(refused(run(), resume=True))
    with pytest.raises(OutputError, match=r"file is a file$"):
        plan_run(run(output=tmp_path / "file" / "below"))


def test_an_unfinished_run_is_left_as_it_is(run: Run, tmp_path: Path) -> None:
    config = run()
    stage = stage_folder(config.output.resolve())
    with StagedCheckpoint.open(config.output, resume=False) as held:
        held.journal_path.write_text("{}")
        with pytest.raises(OutputError, match="another run is writing"):
            plan_run(config)
    before = sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*"))
    with pytest.raises(OutputError, match="continue it with --resume"):
        plan_run(config, resume=False)
    plan_run(config)
    plan_run(config, fresh=True)
    assert sorted((path, path.stat().st_mtime_ns) for path in tmp_path.rglob("*")) == before
    assert stage.is_dir()


def test_a_folder_that_cannot_be_written_is_refused(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Asked, because the tests may run as root, who may write anywhere.
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (tmp_path, os.W_OK | os.X_OK))
    with pytest.raises(OutputError, match=rf"cannot write in {tmp_path}/new: {tmp_path} is not writable$"):
        plan_run(run(output=tmp_path / "new" / "out"))
