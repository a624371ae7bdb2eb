"""Methods that fold scales into a block, and those whose runtimes quantize activations, through the whole pipeline."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.errors import CheckpointError, HookError
from hyocr_core.models.load import load_model
from hyocr_core.plugin.method import Method
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

SOURCE = """
import torch
from hyocr_core import MethodSpec, hookimpl
from hyocr_core.kit import fold
from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

@hookimpl
def method_spec():
    return MethodSpec("smooth", ToyConfig, "folds scales", api_version=1, rescales_block={rescales})

@hookimpl
def calibrate(block, batches):
    return {{name: {{}} for name in block.layers}}

@hookimpl
def settle(block, stats):
    for smoothing in block.smoothing:
        count = len(smoothing.source.weight)
        scales = torch.rand(count, generator=torch.Generator().manual_seed(block.index)) + 0.5
        fold(block, smoothing, scales)
    {more}
    return stats
"""
ROUNDED = """
@hookimpl
def quantize_inputs(inputs, tensors):
    assert set(tensors) == {"weight_packed", "weight_scale", "weight_shape"}
    return inputs.to(torch.float8_e4m3fn).to(inputs.dtype)

# A format of its own: what a known one does with inputs is known, whatever the method that wrote it says.
@hookimpl(specname="checkpoint_config")
def own_config():
    return {"quant_method": "rounded"}
"""


@pytest.fixture
def run_config(demo: Path, calib: str, tmp_path: Path) -> Callable[..., RunConfig]:
    def make(**changes: Any) -> RunConfig:
        given: dict[str, Any] = {"model": str(demo), "output": tmp_path / "out", "method": "smooth", "calib": calib}
        return RunConfig(**(given | {"num_samples": 3, "device": "cpu"} | changes))

    return make


def install(plugins: PluginFolder, more: str = "", *, rescales: bool = True, hooks: str = "") -> None:
    plugins.toy()
    source = SOURCE.format(rescales=rescales, more=more)
    # One module has each hook once.
    plugins.module("smooth", (source.replace("checkpoint_config, ", "") if hooks else source) + hooks)


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.safetensors")}


@pytest.mark.parametrize("quant_vit", [False, True])
def test_folded_norms_are_written_and_the_model_computes_the_same(
    quant_vit: bool, demo: Path, plugins: PluginFolder, run_config: Callable[..., RunConfig]
) -> None:
    install(plugins)
    run = run_config(options={"quant_vit": quant_vit})
    quantize(run)
    report = read_report(run.output)
    before, after = load_file(demo / "model.safetensors"), load_file(run.output / "model.safetensors")
    changed = {name for name in before if name in after and not torch.equal(before[name], after[name])}
    assert changed == set(report.rescaled)
    assert {
        f"model.layers.{i}.{part}_layernorm.weight" for i in range(4) for part in ("input", "post_attention")
    } <= changed
    assert ("vit.layers.0.self_attn.v_proj.bias" in changed) == quant_vit
    assert not any(name.endswith("mlp.dense_h_to_4h.bias") for name in changed)
    # int8 keeps each folded weight within half a step, so that undoing the fold gives the old weights back.
    name = "model.layers.0.self_attn.q_proj"
    norm = "model.layers.0.input_layernorm.weight"
    folded = load_model(run.output, torch.device("cpu")).model.language_model.layers[0].self_attn.q_proj.weight
    restored = folded.float() * (after[norm].float() / before[norm].float())
    weight = before[f"{name}.weight"].float()
    assert (restored - weight).norm() < 0.02 * weight.norm()


def test_digests_of_the_weight_files_are_in_the_report(
    plugins: PluginFolder, run_config: Callable[..., RunConfig]
) -> None:
    install(plugins)
    run = run_config()
    noted = quantize(run).output_sha256
    assert noted.items() >= digests(run.output).items()


@pytest.mark.parametrize("stop_at", ["vit.layers.2", "vit.perceive", "model.layers.0", "model.layers.2"])
def test_a_run_resumed_in_either_tower_gives_the_same_bytes(
    stop_at: str,
    plugins: PluginFolder,
    run_config: Callable[..., RunConfig],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    install(plugins, hooks=ROUNDED)
    options = {"quant_vit": True}
    straight = run_config(output=tmp_path / "straight", options=options)
    quantize(straight)
    calibrate = Method.calibrate

    def stop(self: Method, block: Any, batches: Any, config: Any) -> Any:
        if block.name == stop_at:
            raise KeyboardInterrupt
        return calibrate(self, block, batches, config)

    run = run_config(options=options)
    with monkeypatch.context() as patch:
        patch.setattr(Method, "calibrate", stop)
        with pytest.raises(KeyboardInterrupt):
            quantize(run)
    quantize(run, resume=True)
    assert digests(run.output) == digests(straight.output)
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_the_next_block_sees_quantized_activations_as_the_loaded_model_does(
    plugins: PluginFolder, run_config: Callable[..., RunConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    install(plugins, hooks=ROUNDED)
    run, seen = run_config(num_samples=1, options={"quant_vit": True}), {}
    calibrate = Method.calibrate

    def spy(self: Method, block: Any, batches: Any, config: Any) -> Any:
        seen[block.name] = next(iter(batches))
        return calibrate(self, block, batches, config)

    monkeypatch.setattr(Method, "calibrate", spy)
    quantize(run)
    layers = load_model(run.output, torch.device("cpu")).model.language_model.layers
    state = seen["model.layers.0"].hidden_states
    context = seen["model.layers.0"].context
    with torch.no_grad():
        found = layers[0](state, position_embeddings=context["position_embeddings"])
        assert torch.equal(found, seen["model.layers.1"].hidden_states)
        for handle in layers[0].self_attn.q_proj._forward_pre_hooks.copy():
            del layers[0].self_attn.q_proj._forward_pre_hooks[handle]
        assert not torch.equal(layers[0](state, position_embeddings=context["position_embeddings"]), found)


@pytest.mark.parametrize(
    ("more", "rescales", "problem"),
    [
        ("", False, "changed self_attn.q_proj.weight, but its method_spec does not say rescales_block"),
        ("block.layers[block.groups[1][0]].weight.data.mul_(1.5)", True, "changed the block's output by "),
        ("block.module.mlp.up_proj.weight.data[0, 0] = float('nan')", True, "changed the block's output by nan%"),
    ],
)
def test_a_method_that_changes_what_a_block_computes_is_named(
    more: str, rescales: bool, problem: str, plugins: PluginFolder, run_config: Callable[..., RunConfig]
) -> None:
    install(plugins, more, rescales=rescales)
    where = r"^method smooth \(hyocr-plugin-smooth 0.0.1\), hook settle, model.layers.0: "
    with pytest.raises(HookError, match=where + re.escape(problem)):
        quantize(run_config())


@pytest.mark.parametrize("value", [0.0, float("nan")])
def test_a_norm_that_cannot_be_divided_is_refused_before_any_work(
    value: float, plugins: PluginFolder, edited_demo: Callable[[Any], Path], run_config: Callable[..., RunConfig]
) -> None:
    def edit(tensors: dict[str, Tensor]) -> None:
        tensors["model.layers.2.post_attention_layernorm.weight"][17] = value

    install(plugins)
    run = run_config(model=str(edited_demo(edit)))
    with pytest.raises(
        CheckpointError, match=r"model.layers.2.post_attention_layernorm.weight (is zero in channel 17|holds NaN)"
    ):
        quantize(run)
    assert not run.output.exists()
    # A method that does not rescale takes the zero.
    if value == 0:
        quantize(run.model_copy(update={"method": "toy"}))
