"""A method's look at the whole model: what it sees, what it may change, and what is refused."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.checkpoint.reader import digest
from hyocr_core.cli.main import main
from hyocr_core.errors import HookError, MethodError
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.testing.generations import EMBEDDING, HEAD, write_generation
from hyocr_core.testing.tiny import write_checkpoint
from hyocr_core.verification.verify import verify
from tests.run.killing import kill_after

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

PLUGIN = """
import os
from hyocr_core import MethodSpec, Prepared, Stat, hookimpl
from hyocr_plugin_toy import plugin as toy
from hyocr_plugin_toy.plugin import ToyConfig, check_layers, checkpoint_config, pack, quantize_layer, unpack

seen = {{}}

@hookimpl
def method_spec():
    return MethodSpec("{name}", ToyConfig, "p", api_version=1, needs_calibration={calibrates})

@hookimpl
def calibrate(block, batches):
    total = Stat(sum(batch.hidden_states.sum() for batch in batches), "sum")
    return {{name: {{"total": total}} for name in block.layers}}

@hookimpl
def prepare(model, batches, config, seed):
    with open(os.environ["HYOCR_TEST_LOG"], "a") as log:
        log.write("prepare\\n")
    {body}
"""
NORM = "model.layers.0.input_layernorm.weight"
QKV = [f"model.layers.0.self_attn.{part}_proj.weight" for part in "qkv"]
FOLD = f"""tensors = model.read({NORM!r}, *{QKV!r})
    tensors = {{name: tensor * (2 if name == {NORM!r} else 0.5) for name, tensor in tensors.items()}}
    return Prepared(tensors=tensors, config={{"folded_by": "test"}}, overrides={{"*.down_proj": {{"clip": 0.9}}}})"""


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HYOCR_TEST_LOG", str(tmp_path / "log"))
    write_checkpoint(tmp_path / "model")
    return tmp_path / "model"


def install(plugins: PluginFolder, name: str, body: str, *, calibrates: bool = True) -> None:
    plugins.toy()
    plugins.module(name, PLUGIN.format(name=name, body=body, calibrates=calibrates))


def run_of(model: Path, method: str, **settings: Any) -> RunConfig:
    given = {"model": str(model), "output": model.with_name("out"), "method": method, "device": "cpu"}
    return RunConfig.model_validate({**given, "calib": "synthetic:2", "num_samples": 2, **settings})


def test_it_sees_every_layer_by_kind_and_streams_weights_blocks_and_samples(plugins: PluginFolder, model: Path) -> None:
    body = """seen["kinds"] = {name: layer.kind for name, layer in model.layers.items()}
    seen["shapes"] = {name: layer.shape for name, layer in model.layers.items()}
    seen["batches"] = [tuple(batch.hidden_states.shape) for batch in batches]
    for opened in model.blocks():
        with opened as block:
            seen[block.name] = [block.run(batch).shape for batch in batches], len(block.layers)"""
    install(plugins, "looks", body)
    quantize(run_of(model, "looks"))
    seen = sys.modules["hostile_looks"].seen
    stored = load_file(model / "model.safetensors")
    assert {name for name, kind in seen["kinds"].items() if kind == "embedding"} == {"model.embed_tokens"}
    for name, shape in seen["shapes"].items():
        assert tuple(stored[f"{name}.weight"].shape) == shape
    assert sum(kind == "linear" for kind in seen["kinds"].values()) == 2 * 7 + 6 + 1
    assert seen["model.layers.1"] == ([torch.Size(shape) for shape in seen["batches"]], 7)


def test_replaced_tensors_options_and_config_reach_the_checkpoint(plugins: PluginFolder, model: Path) -> None:
    install(plugins, "folds", FOLD)
    report = quantize(run_of(model, "folds", overrides={"model.layers.1.*": {"clip": 0.8}}))
    before, after = load_file(model / "model.safetensors"), load_file(model.with_name("out") / "model.safetensors")
    assert torch.equal(after[NORM], before[NORM] * 2)
    q = QKV[0].removesuffix(".weight")
    half = before[QKV[0]].float().abs().amax(1) * 0.5 / 127
    assert torch.allclose(after[f"{q}.weight_scale"].flatten().float(), half, rtol=0.01)
    assert report.prepared == (NORM, *QKV)
    assert json.loads((model.with_name("out") / "config.json").read_text())["folded_by"] == "test"
    options = {layer.name: layer.options for layer in report.layers}
    assert options["model.layers.0.mlp.down_proj"] == {"clip": 0.9}
    assert options["model.layers.1.mlp.down_proj"] == {"clip": 0.8}, "the user's come first"
    assert options[q] == {}


def test_verify_turns_weights_back_where_the_method_can(plugins: PluginFolder, model: Path) -> None:
    install(plugins, "folds", FOLD)
    quantize(run_of(model, "folds"))
    found = verify(model.with_name("out"), original=str(model))
    assert found.faults == ()
    assert [note for note in found.notes if "replaced" in note] == [
        "1 tensors that are not quantized were replaced by the method and were not compared",
        "3 quantized layers were replaced by the method and were not compared: "
        "method folds (hyocr-plugin-folds 0.0.1) has no hook original_basis",
    ]
    assert len(found.layers) == 2 * 7 - 3
    undo = "\n\n@hookimpl\ndef original_basis(layer, weight, config):\n    assert layer.name.endswith('_proj')\n"
    plugins.module("folds", PLUGIN.format(name="folds", body=FOLD, calibrates=True) + undo + "    return weight * 2\n")
    del sys.modules["hostile_folds"]
    found = verify(model.with_name("out"), original=str(model))
    assert found.faults == ()
    assert len(found.layers) == 2 * 7
    plugins.module("folds", PLUGIN.format(name="folds", body=FOLD, calibrates=True) + undo + "    return weight\n")
    del sys.modules["hostile_folds"]
    wrong = verify(model.with_name("out"), original=str(model)).faults
    assert [fault.place for fault in wrong] == [name.removesuffix(".weight") for name in QKV]


def test_a_resumed_run_is_not_asked_again_and_writes_the_same_bytes(plugins: PluginFolder, model: Path) -> None:
    install(plugins, "folds", FOLD)
    quantize(run_of(model, "folds", options={"quant_vit": True}))
    stopped = run_of(model, "folds", output=model.with_name("stopped"), options={"quant_vit": True})
    log = Path(os.environ["HYOCR_TEST_LOG"])
    log.unlink()
    kill_after("prepared", stopped)
    kill_after("vision-00000", stopped, resume=True)
    kill_after("block-00001", stopped, resume=True)
    quantize(stopped, resume=True)
    assert log.read_text() == "prepare\n" * 2, "what was not in the journal when it was killed is asked for again"
    due, found = (digest(folder / "model.safetensors") for folder in (model.with_name("out"), stopped.output))
    assert found == due


def test_tensors_that_change_the_predictions_are_refused(plugins: PluginFolder, model: Path) -> None:
    install(plugins, "breaks", f"return Prepared(tensors={{name: t * 2 for name, t in model.read({NORM!r}).items()}})")
    command = ["quant", "--model", str(model), "--output", str(model.with_name("out")), "--method", "breaks"]
    result = CliRunner().invoke(main, [*command, "--calib", "synthetic:2", "--num-samples", "2", "--device", "cpu"])
    assert result.exit_code == 2
    assert "method breaks (hyocr-plugin-breaks 0.0.1), hook prepare: the tensors that it replaced" in result.stderr
    assert "it must compute the same" in result.stderr
    assert not model.with_name("out").exists()


@pytest.mark.parametrize("keep_head", [False, True])
def test_no_copy_is_kept_of_an_embedding_that_the_method_replaced(
    plugins: PluginFolder, model: Path, keep_head: bool
) -> None:
    write_generation(model.with_name("new"), "1.5")
    body = f"return Prepared(tensors={{name: 1.01 * value for name, value in model.read({EMBEDDING!r}).items()}})"
    install(plugins, "louder", body)
    quantize(run_of(model.with_name("new"), "louder", keep_head=keep_head))
    tensors, before = (load_file(model.with_name(name) / "model.safetensors") for name in ("out", "new"))
    assert HEAD not in tensors
    assert torch.equal(tensors[EMBEDDING], 1.01 * before[EMBEDDING])


def test_it_needs_no_calibration_to_be_checked(plugins: PluginFolder, model: Path) -> None:
    install(plugins, "breaks", f"return Prepared(tensors={{name: t * 2 for name, t in model.read({NORM!r}).items()}})")
    plugins.module("blind", PLUGIN.format(name="blind", body=FOLD, calibrates=False))
    quantize(run_of(model, "blind"))
    assert read_report(model.with_name("out")).prepared == (NORM, *QKV)


@pytest.mark.parametrize(
    ("body", "error", "said"),
    [
        ("return {}", HookError, "must return Prepared or None, not a value of type dict"),
        ("return Prepared(tensors={'nonsense': model.read(*list(model.tensors)[:1]).popitem()[1]})", HookError,
         "replaces 'nonsense', which is no tensor of the checkpoint"),
        (f"return Prepared(tensors={{{NORM!r}: model.read({NORM!r})[{NORM!r}].float()}})", HookError,
         f"replaces {NORM} by torch.float32"),
        ("return Prepared(overrides={'*.nonsense': {'clip': 0.5}})", MethodError,
         "hook prepare: overrides: '*.nonsense' matches no layer that is quantized"),
        ("return Prepared(config={'x': float('nan')})", HookError, "returned what JSON cannot hold"),
    ],
)  # fmt: skip
def test_what_it_returns_is_checked(
    body: str, error: type[Exception], said: str, plugins: PluginFolder, model: Path
) -> None:
    install(plugins, "odd", body)
    with pytest.raises(error) as caught:
        quantize(run_of(model, "odd"))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_method_error_is_bad_input() -> None:
    assert MethodError.exit_code == 2
