"""The kit finds what a method may do wrong: for each promise a method that breaks it and the test that says so."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hyocr_core.testing import MethodContract

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

pytestmark = pytest.mark.needs_methods

HEAD = """
from dataclasses import replace
from pydantic import Field, field_validator
from hyocr_core import ConfigError, MethodSpec, QuantizedLayer, Stat, hookimpl
from hyocr_plugin_toy import plugin as toy
from hyocr_plugin_toy.plugin import ToyConfig, check_layers, checkpoint_config, pack, quantize_layer, unpack

@hookimpl
def method_spec():
    return MethodSpec("{name}", {config}, "b", api_version=1, needs_calibration={calibrates}, rescales_block={rescales})
"""
CONTRACT = """
from hyocr_core.testing import MethodContract

class Test_{name}(MethodContract):
    method = "{name}"
    bits = 8
    error_bound = 0.02
"""
COARSE = """
@hookimpl
def quantize_layer(layer, config):
    from hyocr_core import Layer
    step = layer.weight.abs().amax(1, keepdim=True) / 2
    coarse = (layer.weight / step).round() * step
    return toy.quantize_layer(Layer(layer.name, coarse), config)
"""
UNPACKED = "@hookimpl\ndef unpack(tensors):\n    {}\n"
SETTLED = "@hookimpl\ndef settle(block, stats):\n    {}\n    return stats\n"
CALIBRATED = "@hookimpl\ndef calibrate(block, batches):\n    {}\n    return {{name: {{}} for name in block.layers}}\n"

BAD = {
    "slow": ("import torch\n", "importing_it_imports_no_torch", "importing the plugin imports torch"),
    "filled_in": (
        "class Config(ToyConfig):\n    seed: int = Field(0, description='s')\n"
        "    @field_validator('seed')\n    def _next(cls, value): return value + 1\n",
        "options_are_strict_and_survive_the_report",
        "come back from JSON as Config(",
    ),
    "other_weight": (
        UNPACKED.format("return toy.unpack(tensors) * 1.01"),
        "unpack_gives_the_packed_weight_bit_for_bit",
        "model.layers.0.self_attn.q_proj, torch.bfloat16: unpack does not invert pack: ",
    ),
    "views": (
        "@hookimpl\ndef pack(layer):\n    return {k: v.T for k, v in toy.pack(layer).items()}\n"
        + UNPACKED.format("return toy.unpack({k: v.T.contiguous() for k, v in tensors.items()})"),
        "packed_tensors_survive_a_file",
        "model.layers.0.self_attn.q_proj: safetensors refuses what pack returns: ",
    ),
    "no_copies": (
        "@hookimpl\ndef pack(layer):\n    return toy.pack(layer) | {'weight_scale': layer.tensors['scale']}\n",
        "hooks_leave_alone_what_they_are_given",
        "hook pack: its result shares memory with the layer and so wrote into result.scale",
    ),
    "writes_samples": (
        CALIBRATED.format("next(iter(batches)).hidden_states.mul_(2)"),
        "hooks_leave_alone_what_they_are_given",
        "hook calibrate or settle wrote into page 0[0], which it was given: ",
    ),
    "draws": (
        "@hookimpl\ndef quantize_layer(layer, config):\n    good = toy.quantize_layer(layer, config)\n"
        "    flips = (layer.weight.clone().uniform_() < 0.5).char()\n"
        "    return replace(good, tensors=good.tensors | {'codes': good.tensors['codes'] ^ flips})\n",
        "the_same_input_gives_the_same_bytes",
        "model.layers.0.self_attn.q_proj: weight_packed is another one the second time: ",
    ),
    "even_only": (
        "@hookimpl\ndef check_layers(shapes): pass\n",
        "odd_shapes_work_or_are_refused",
        "hook pack, model.layers.0.mlp.down_proj: RuntimeError: ",
    ),
    "divides": (
        "@hookimpl\ndef quantize_layer(layer, config):\n    good = toy.quantize_layer(layer, config)\n"
        "    return replace(good, dequantized=good.dequantized * (layer.weight / layer.weight).amax())\n",
        "weights_of_zeros_work_or_are_refused",
        "hook quantize_layer, model.layers.0.mlp.down_proj: returned NaN or infinite values",
    ),
    "coarse": (COARSE, "error_is_within_the_bound", "the block's error is 0."),
    "coarser": (COARSE, "error_is_not_above_round_to_nearest", "that of rounding to nearest 0.0"),
    "rescales": (
        CALIBRATED.format("")
        + SETTLED.format("block.layers[block.groups[-1][0]].weight.data.mul_(1.01)"),
        "rescaling_preserves_the_block",
        "settle changed the block's output by 0.",
    ),
    "averages": (
        "@hookimpl\ndef calibrate(block, batches):\n"
        "    mean = sum(batch.hidden_states.float().mean() for batch in batches) / len(batches)\n"
        "    return {name: {'mean': Stat(mean, 'sum')} for name in block.layers}\n",
        "statistics_of_parts_add_up",
        "model.layers.0.self_attn.q_proj: mean of two sets of samples do not make that of both: they are ",
    ),
    "sticky": (
        "first = {}\n@hookimpl\ndef quantize_layer(layer, config):\n"
        "    clip = 0.9 if '.0.' in first.setdefault('name', layer.name) else 1.0\n"
        "    return toy.quantize_layer(layer, config.model_copy(update={'clip': clip}))\n",
        "an_interrupted_run_resumes_to_the_same_bytes",
        "model.safetensors: other bytes than an uninterrupted run writes",
    ),
    "lies": (
        "@hookimpl\ndef pack(layer):\n    packed = toy.pack(layer)\n"
        "    return packed | {'weight_packed': packed['weight_packed'] * 0}\n",
        "unpack_gives_the_packed_weight_bit_for_bit",
        "model.layers.0.self_attn.q_proj, torch.bfloat16: unpack does not invert pack: ",
    ),
    "rounds_inputs": (
        "@hookimpl\ndef quantize_inputs(inputs):\n    return (inputs * 4).round() / 4\n",
        "error_is_within_the_bound",
        "the block's error is 0.",
    ),
    "remembers": (
        "calls = []\n@hookimpl\ndef quantize_layer(layer, config):\n    calls.append(layer.name)\n"
        "    return toy.quantize_layer(layer, config.model_copy(update={'clip': 1 - len(calls) / 100}))\n",
        "an_interrupted_run_resumes_to_the_same_bytes",
        "model.safetensors: other bytes than an uninterrupted run writes",
    ),
    "ignores_nothing": (
        "@hookimpl\ndef checkpoint_config(names):\n    return toy.checkpoint_config(names) | {'ignore': []}\n",
        "the_checkpoint_is_sound",
        "is not quantized, but ignore in config.json does not name it",
    ),
    "zeros": (
        "@hookimpl\ndef pack(layer):\n    packed = toy.pack(layer)\n"
        "    return packed | {'weight_scale': packed['weight_scale'] / 1e3}\n",
        "the_checkpoint_computes_what_the_original_does",
        "hook pack, model.layers.0.self_attn.q_proj: lost something: unpack does not give the weight back: ",
    ),
}  # fmt: skip


def install(plugins: PluginFolder, folder: Path) -> None:
    """Install every bad method, and write their contract tests into one module."""
    plugins.toy()
    module = CONTRACT.format(name="toy")
    for name, (body, *_) in BAD.items():
        calibrates = "def calibrate" in body
        head = HEAD.format(
            name=name,
            config="Config" if "class Config" in body else "ToyConfig",
            calibrates=calibrates,
            rescales=name == "rescales",
        )
        plugins.module(name, head + body)
        module += CONTRACT.format(name=name)
    (folder / "test_kit.py").write_text(module, encoding="utf-8")


def run(folder: Path, *arguments: str) -> tuple[int, str]:
    """Run pytest in a process of its own, as an author does."""
    options = ["-q", "-p", "no:cacheprovider", "--basetemp", str(folder / "base"), "-rA", "--show-capture=no"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, *arguments],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode, done.stdout


def failures(out: str) -> Sequence[str]:
    """The short summary's lines of what failed."""
    return [line for line in out.splitlines() if line.startswith(("FAILED", "ERROR"))]


def test_each_broken_promise_fails_its_test_and_says_why(plugins: PluginFolder, tmp_path: Path) -> None:
    install(plugins, tmp_path)
    ids = {name: f"test_kit.py::Test_{name}::test_{test}" for name, (_, test, _) in BAD.items()}
    _, out = run(tmp_path, *ids.values())
    failed = {line.split()[1] for line in failures(out)}
    assert failed == set(ids.values())
    assert [message for _, _, message in BAD.values() if message not in out] == []


@pytest.mark.parametrize("method", ["toy", "coarse"])
def test_a_checkpoint_that_reads_is_read_before_and_after(
    method: str,
    plugins: PluginFolder,
    tmp_path: Path,
    demo: Path,
    heldout: str,
    calib: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(plugins, tmp_path)
    contract = contract_of(method)
    for name in ("CHECKPOINT", "PAGES", "CALIB"):
        monkeypatch.delenv(f"HYOCR_TEST_{name}", raising=False)
    with pytest.raises(pytest.skip.Exception, match="set HYOCR_TEST_CHECKPOINT and HYOCR_TEST_PAGES"):
        contract.test_it_reads(tmp_path)
    for name, value in {"CHECKPOINT": str(demo), "PAGES": heldout, "CALIB": calib}.items():
        monkeypatch.setenv(f"HYOCR_TEST_{name}", value)
    if method == "toy":
        contract.test_it_reads(tmp_path)
    else:
        with pytest.raises(pytest.fail.Exception, match=r"the character error rate rises by \d+"):
            contract.test_it_reads(tmp_path)


@pytest.mark.parametrize(
    ("method", "problem"),
    [
        (None, 'TestOne names no method; write `method = "mymethod"` in the class'),
        ("gptqq", r"no method 'gptqq' \(installed: "),
    ],
)
def test_a_class_without_a_method_is_told_what_to_write(method: str | None, problem: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=problem):
        contract_of(method).test_the_plugin_is_accepted()


def contract_of(method: str | None) -> MethodContract:
    """The contract as a plugin's tests derive it."""

    class TestOne(MethodContract):
        pass

    if method is not None:
        TestOne.method = method
    return TestOne()


def test_its_fixtures_serve_other_tests_and_load_no_torch_themselves(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "import sys\n"
        "pytest_plugins = ['hyocr_core.testing.plugin']\n"
        "loaded = 'torch' in sys.modules\n"
        "def test_loading(): assert not loaded\n"
        "def test_fixtures(hyocr_block, hyocr_checkpoint, hyocr_pages):\n"
        "    block, batches = hyocr_block\n"
        "    assert len(block.layers) == 7\n"
        "    assert block.run(batches[0]).shape == batches[0].hidden_states.shape\n"
        "    assert (hyocr_checkpoint / 'config.json').is_file()\n"
        "    assert hyocr_pages == 'synthetic:4'\n",
        encoding="utf-8",
    )
    code, out = run(tmp_path, "test_it.py")
    assert code == 0, out


def test_a_run_that_does_not_ask_for_the_kit_loads_nothing_of_hyocr(tmp_path: Path) -> None:
    source = "import sys\ndef test_it(): assert not [name for name in sys.modules if name.startswith('hyocr')]\n"
    (tmp_path / "test_it.py").write_text(source, encoding="utf-8")
    assert run(tmp_path, "test_it.py")[0] == 0
