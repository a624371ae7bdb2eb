"""The whole job on the demo checkpoint: what is written, what is refused, and that it can be killed anywhere."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from hyocr_core.checkpoint.quant_report import QuantReport, read_report
from hyocr_core.checkpoint.sealed import seal, unseal
from hyocr_core.errors import BadInputError, CalibrationError, CheckpointError, ConfigError, OutputError, RunError
from hyocr_core.models.load import load_model
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source, select
from hyocr_core.plugin.method import Method
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig

pytestmark = pytest.mark.needs_methods

SAMPLES = 6


@pytest.fixture
def run_config(demo: Path, calib: str, tmp_path: Path) -> Callable[..., RunConfig]:
    def make(**changes: Any) -> RunConfig:
        given = {"model": str(demo), "output": tmp_path / "out", "method": "gptq", "calib": calib}
        return RunConfig(**(given | {"num_samples": SAMPLES, "device": "cpu"} | changes))

    return make


def contents(folder: Path) -> dict[str, str]:
    """File -> digest; the report is left out, because it holds seconds."""
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and path.name != "hyocr_report.json"
    }


@pytest.fixture(scope="module")
def straight(demo: Path, calib: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run, to compare with."""
    output = tmp_path_factory.mktemp("straight") / "out"
    quantize(RunConfig(model=str(demo), output=output, method="gptq", calib=calib, num_samples=SAMPLES, device="cpu"))
    return output


def test_only_the_linears_of_the_plan_change(demo: Path, straight: Path) -> None:
    before, after = load_file(demo / "model.safetensors"), load_file(straight / "model.safetensors")
    report = read_report(straight)
    quantized = {layer.name for layer in report.layers}
    carried = {name for name in before if name.removesuffix(".weight") not in quantized}
    assert len(quantized) == 28
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in carried)
    assert {name.rpartition(".")[0] for name in after if name not in carried} == quantized
    assert not any(f"{name}.weight" in after for name in quantized)
    assert not any(name.startswith("lm_head") for name in after)


def test_files_beside_the_weights_are_carried_over_byte_for_byte(demo: Path, straight: Path) -> None:
    before, after = contents(demo), contents(straight)
    kept = set(before) - {"config.json", "model.safetensors"}
    assert {"tokenizer.json", "chat_template.jinja", "generation_config.json"} <= kept
    assert {name: after[name] for name in kept} == {name: before[name] for name in kept}
    assert set(after) == set(before) | {"README.md"}
    assert [path.name for path in straight.parent.iterdir()] == ["out"]


def test_config_keeps_its_keys_and_gains_the_quantization(
    straight: Path, demo_config: dict[str, object], demo: Path
) -> None:
    config = json.loads((straight / "config.json").read_text())
    quantization = config.pop("quantization_config")
    assert config == demo_config
    assert (quantization["quant_method"], quantization["bits"], quantization["group_size"]) == ("gptq", 4, 128)
    assert str(demo.parent) not in (straight / "config.json").read_text() + (straight / "hyocr_report.json").read_text()


def test_report_holds_every_layer_with_errors_below_round_to_nearest(straight: Path) -> None:
    report = read_report(straight)
    assert report.calibration is not None
    assert report.calibration.samples == SAMPLES
    for layer in report.layers:
        assert 0 < layer.metrics["output_error"] < layer.metrics["output_error_rtn"] < 1
        assert layer.metrics["damping"] > 0
        assert layer.seconds > 0
    assert report.weight_bytes_after < report.weight_bytes_before
    assert report.weight_bytes_after == sum(t.nbytes for t in load_file(straight / "model.safetensors").values())


def test_same_input_and_seed_give_the_same_bytes(straight: Path, run_config: Callable[..., RunConfig]) -> None:
    run = run_config()
    quantize(run)
    assert contents(run.output) == contents(straight)


def test_spilled_activations_give_the_same_bytes(straight: Path, run_config: Callable[..., RunConfig]) -> None:
    run = run_config(spill=True)
    quantize(run)
    assert contents(run.output) == contents(straight)


def test_next_block_is_calibrated_on_what_the_quantized_block_gives(
    straight: Path, run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: dict[int, Tensor] = {}
    calibrate = Method.calibrate

    def spy(self: Method, block: Any, batches: Any, config: Any) -> Any:
        seen.setdefault(block.index, next(iter(batches)).hidden_states.clone())
        return calibrate(self, block, batches, config)

    monkeypatch.setattr(Method, "calibrate", spy)
    quantize(run_config(output=tmp_path / "again"))
    whole = load_model(straight, torch.device("cpu"))
    captured: list[Tensor] = []
    second = whole.model.language_model.layers[1].self_attn.q_proj
    second.register_forward_pre_hook(lambda _module, inputs: captured.append(inputs[0]))
    run_sample(whole, run_config())
    assert torch.equal(captured[0], seen[1])


@torch.no_grad()
def run_sample(whole: Any, run: RunConfig) -> None:
    """Show the model the first calibration sample."""
    records = select(open_source(run.calib), run.num_samples, run.seed)
    whole(**build_sample(records[0], load_processor(Path(run.model)), with_answer=True).inputs)


KILLER = """
import os, signal, sys
from hyocr_core.{module} import {cls}
from hyocr_core.cli.main import main
original, left = {cls}.{function}, [{count}]

def counted(*args, **kwargs):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(*args, **kwargs)

{cls}.{function} = counted
sys.argv[0] = "hyocr"
main()
"""

KILL_POINTS = [
    pytest.param("checkpoint.journal", "Journal", "save", 4, id="while embedding samples"),
    pytest.param("checkpoint.writer", "StagedCheckpoint", "add_part", 0, id="before the first block is written"),
    pytest.param("checkpoint.journal", "Journal", "save", SAMPLES + 2, id="between a part and its journal entry"),
    pytest.param("checkpoint.writer", "StagedCheckpoint", "add_part", 3, id="in the last block"),
    pytest.param("checkpoint.writer", "StagedCheckpoint", "publish", 0, id="before the rename"),
]


@pytest.mark.parametrize(("module", "cls", "function", "count"), KILL_POINTS)
def test_killed_and_resumed_is_byte_identical(
    module: str, cls: str, function: str, count: int, straight: Path, demo: Path, calib: str, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    arguments = ["quant", "--method", "gptq", "--model", str(demo), "--output", str(output), "--device", "cpu"]
    arguments += ["--calib", calib, "--num-samples", str(SAMPLES)]
    script = KILLER.format(module=module, cls=cls, function=function, count=count)
    # The thread count is part of what must not change between the runs.
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads())}
    killed = subprocess.run([sys.executable, "-c", script, *arguments], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not output.exists()
    command = [str(Path(sys.executable).with_name("hyocr")), *arguments, "--resume"]
    resumed = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert contents(output) == contents(straight)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def interrupted(run_config: Callable[..., RunConfig], stop_in_block_2: Callable[[RunConfig], None]) -> RunConfig:
    """A run that was stopped by Ctrl-C in block 2."""
    run = run_config()
    stop_in_block_2(run)
    return run


def test_ctrl_c_leaves_a_resumable_run(interrupted: RunConfig, straight: Path) -> None:
    assert not interrupted.output.exists()
    with pytest.raises(OutputError, match="--resume"):
        quantize(interrupted, resume=False)
    report = quantize(interrupted)
    assert report.resumed_after_block == 1
    assert contents(interrupted.output) == contents(straight)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"options": {"group_size": 64}}, r"options.group_size: 128 -> 64"),
        ({"num_samples": SAMPLES - 1}, r"calibration.num_samples: 6 -> 5"),
        ({"seed": 1}, r"calibration.seed: 0 -> 1"),
    ],
)
def test_a_changed_run_refuses_to_resume_and_names_the_change(
    interrupted: RunConfig, changes: dict[str, Any], named: str
) -> None:
    with pytest.raises(OutputError, match=named):
        quantize(interrupted.model_copy(update=changes), resume=True)


def edit_journal(run: RunConfig, edit: Callable[[dict[str, Any]], None]) -> None:
    """Make the journal of an unfinished run say something else, as if the world had changed since."""
    path = run.output.parent / ".out.hyocr-partial" / "journal.json"
    journal = unseal(path.read_bytes())
    edit(journal)
    path.write_bytes(seal(journal))


@pytest.mark.parametrize(
    ("section", "key", "named"),
    [
        ("versions", "torch", r"versions.torch: before -> "),
        ("versions", "hyocr-core", r"versions.hyocr-core: before -> "),
        ("method", "version", r"method.version: before -> "),
        ("model", "model.safetensors", r"model.model.safetensors: before -> "),
        ("model", "tokenizer.json", r"model.tokenizer.json: before -> "),
    ],
)
def test_a_changed_version_or_input_refuses_to_resume(
    interrupted: RunConfig, section: str, key: str, named: str
) -> None:
    edit_journal(interrupted, lambda journal: journal["fingerprint"][section].update({key: "before"}))
    with pytest.raises(OutputError, match=named):
        quantize(interrupted, resume=True)


def test_a_changed_page_refuses_to_resume(interrupted: RunConfig) -> None:
    edit_journal(interrupted, lambda journal: journal["record"]["pages"].update({"00000": "0" * 64}))
    with pytest.raises(OutputError, match=r"the calibration sample .* has changed since the run began"):
        quantize(interrupted, resume=True)


def poison(value: float) -> Callable[[dict[str, Tensor]], None]:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.1.self_attn.o_proj.weight"][3, 5] = value

    return edit


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused(
    value: float, edited_demo: Callable[[Any], Path], run_config: Callable[..., RunConfig]
) -> None:
    run = run_config(model=str(edited_demo(poison(value))))
    with pytest.raises(CheckpointError, match=r"model.layers.1.self_attn.o_proj.weight holds NaN or infinite values"):
        quantize(run)
    assert not run.output.exists()


def overflow(tensors: dict[str, Tensor]) -> None:
    # Finite weights whose product with the activations is not.
    tensors["model.layers.1.post_attention_layernorm.weight"].fill_(3e38)


def test_an_activation_that_overflows_names_layer_and_sample(
    edited_demo: Callable[[Any], Path], run_config: Callable[..., RunConfig]
) -> None:
    run = run_config(model=str(edited_demo(overflow)))
    with pytest.raises(RunError, match=r"model.layers.1.mlp.gate_proj: its input is NaN or infinite for the sample"):
        quantize(run)


def test_round_to_nearest_needs_no_calibration(run_config: Callable[..., RunConfig]) -> None:
    run = run_config(method="rtn", calib="/no/such/folder")
    report = quantize(run)
    assert report.calibration is None
    assert len(report.layers) == 28


def test_ignored_layers_stay_as_they_are(demo: Path, run_config: Callable[..., RunConfig]) -> None:
    run = run_config(options={"ignore": ["*.down_proj"]})
    report = quantize(run)
    before, after = load_file(demo / "model.safetensors"), load_file(run.output / "model.safetensors")
    assert len(report.layers) == 24
    for index in range(4):
        name = f"model.layers.{index}.mlp.down_proj.weight"
        assert torch.equal(before[name], after[name])


def test_quantizing_twice_is_refused(straight: Path, run_config: Callable[..., RunConfig]) -> None:
    with pytest.raises(CheckpointError, match=r"already quantized \(gptq\)"):
        quantize(run_config(model=str(straight)))


def test_bad_input_is_refused_before_anything_is_written(run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    bad: list[tuple[dict[str, Any], type[BadInputError], str]] = [
        ({"options": {"group_size": 48}}, ConfigError, "group_size"),
        ({"options": {"bits": 3}}, ConfigError, "bits"),
        ({"model": str(tmp_path / "nothing")}, CheckpointError, "nothing"),
        ({"calib": str(tmp_path / "nothing.jsonl")}, CalibrationError, "nothing.jsonl"),
        ({"device": "cuda:77"}, BadInputError, "cuda:77"),
    ]
    for changes, error, message in bad:
        with pytest.raises(error, match=message):
            quantize(run_config(**changes))
        assert list(tmp_path.iterdir()) == []


def test_too_little_memory_is_said_before_the_start(
    run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"available": 10**6}))
    with pytest.raises(
        BadInputError, match=r"needs about .* MB of memory, 1.0 MB are free; use fewer samples, --spill, or"
    ):
        quantize(run_config())
    assert list(tmp_path.iterdir()) == []


def test_too_many_bad_pages_stop_the_run(run_config: Callable[..., RunConfig], tmp_path: Path, calib: str) -> None:
    rows = Path(calib).read_text().splitlines()[:4]
    data = tmp_path / "data"
    shutil.copytree(Path(calib).parent / "images", data / "images")
    (data / "pages.jsonl").write_text("\n".join(rows) + "\n")
    broken = data / json.loads(rows[1])["img_path"]
    broken.write_bytes(broken.read_bytes()[:60])
    run = run_config(calib=str(data / "pages.jsonl"))
    with pytest.raises(CalibrationError, match=r"1 of 4 samples cannot be used"):
        quantize(run)
    assert not run.output.exists()


def test_degraded_layers_are_reported(run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch) -> None:
    quantize_group = Method.quantize_group

    def degrade(self: Method, layers: Any, stats: Any, config: Any, seed: int) -> Any:
        return [replace(result, degraded="test") for result in quantize_group(self, layers, stats, config)]

    monkeypatch.setattr(Method, "quantize_group", degrade)
    report: QuantReport = quantize(run_config())
    assert len(report.degraded) == 28


def test_shards_are_valid_safetensors(straight: Path) -> None:
    with safe_open(straight / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_an_empty_quantization_config_is_none(demo: Path, run_config: Callable[..., RunConfig], tmp_path: Path) -> None:
    folder = tmp_path / "exported"
    shutil.copytree(demo, folder)
    config = json.loads((folder / "config.json").read_text()) | {"quantization_config": None}
    (folder / "config.json").write_text(json.dumps(config))
    run = run_config(method="rtn", model=str(folder))
    quantize(run)
    assert json.loads((run.output / "config.json").read_text())["quantization_config"]["bits"] == 4


def test_a_finished_run_given_again_says_so_at_once(
    run_config: Callable[..., RunConfig], straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(straight, tmp_path / "out")
    before = contents(tmp_path / "out")
    monkeypatch.setattr("hyocr_core.run.quantize.prepare", lambda *_: pytest.fail("that is too late"))
    with pytest.raises(OutputError, match=r"out is finished already, by a run with these very settings; with --resume"):
        quantize(run_config())
    with pytest.raises(OutputError, match=r"out is finished already"):
        quantize(run_config(), fresh=True)
    with pytest.raises(OutputError, match=r"out is not empty: give a new or empty folder as the output"):
        quantize(run_config(seed=1))
    assert quantize(run_config(), resume=True).method.name == "gptq"
    assert contents(tmp_path / "out") == before
