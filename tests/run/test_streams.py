"""What a method sees that calibrates group by group beside the full-precision path, against whole models."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor

from hyocr_core.checkpoint.reader import digest
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import load_whole, open_weights
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source, select
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.testing.tiny import write_checkpoint
from tests.run.killing import kill_after

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

RECORDER = """
from hyocr_core import MethodSpec, Stat, hookimpl
from hyocr_plugin_toy import plugin as toy
from hyocr_plugin_toy.plugin import ToyConfig, check_layers, checkpoint_config, pack, quantize_layer, unpack

seen = {{}}

@hookimpl
def method_spec():
    return MethodSpec("recorder", ToyConfig, "r", api_version=1, inputs="{inputs}", reference_inputs=True)

@hookimpl
def calibrate(block, batches):
    for batch in batches:
        seen[block.name, block.groups, batch.name] = batch.hidden_states.clone(), batch.reference.clone()
    return {{name: {{"tokens": Stat(batch.hidden_states.sum(), "sum")}} for name in block.layers}}
"""
SAMPLES = 2


def run_of(model: Path, calib: str, output: Path, method: str, **settings: Any) -> RunConfig:
    given = {"model": str(model), "output": output, "method": method, "device": "cpu", "calib": calib}
    return RunConfig.model_validate({**given, "num_samples": SAMPLES, **settings})


def read_by(model: HunYuanVL, calib: str, processor: Any, layer: str) -> Iterator[tuple[str, Tensor]]:
    """The input of a linear, (1, tokens, K), when the whole model computes each calibration sample."""
    linear, seen = model.modules[layer], []
    handle = linear.register_forward_pre_hook(lambda _module, args: seen.append(args[0]))
    for record in select(open_source(calib), SAMPLES, 0):
        sample = build_sample(record, processor, with_answer=True)
        with torch.no_grad():
            model.skeleton(**sample.inputs)
        yield record.name, seen.pop()
    handle.remove()


ONCE = """
from hyocr_core import MethodSpec, Stat, hookimpl
from hyocr_plugin_toy.plugin import ToyConfig, check_layers, checkpoint_config, pack, quantize_layer, unpack

seen, ran = {}, []

@hookimpl
def method_spec():
    return MethodSpec("once", ToyConfig, "o", api_version=1, original_inputs=True)

@hookimpl
def calibrate(block, batches):
    block.module.register_forward_hook(lambda *_: ran.append(block.name))
    layer = next(iter(block.layers))
    block.layers[layer].register_forward_pre_hook(lambda _, args: seen.update({(layer, batch.name): args[0]}))
    for number, batch in enumerate(batches):
        if number == 0:
            block.run(batch)
            block.run(batch)
    return {name: {"tokens": Stat(batch.hidden_states.sum(), "sum")} for name in block.layers}
"""


@pytest.mark.parametrize("spill", [False, True])
def test_a_method_may_see_what_unquantized_blocks_make(
    spill: bool, demo: Path, calib: str, processor: Any, plugins: PluginFolder, tmp_path: Path
) -> None:
    """And no block is run for it where it has run it itself."""
    plugins.toy()
    plugins.module("once", ONCE)
    quantize(run_of(demo, calib, tmp_path / "out", "once", spill=spill))
    module = sys.modules["hostile_once"]
    original = load_whole(open_weights(demo), torch.device("cpu"))
    for layer in ("model.layers.1.self_attn.q_proj", "model.layers.3.self_attn.q_proj"):
        page, due = next(read_by(original, calib, processor, layer))
        torch.testing.assert_close(module.seen[layer, page], due, rtol=0.02, atol=0.02)
    assert module.ran == [f"model.layers.{index}" for index in (0, 0, 0, 1, 1, 1, 2, 2, 2, 3, 3)]


@pytest.mark.parametrize("spill", [False, True])
def test_both_paths_are_those_of_whole_models(
    spill: bool, demo: Path, calib: str, processor: Any, plugins: PluginFolder, tmp_path: Path
) -> None:
    plugins.toy()
    plugins.module("recorder", RECORDER.format(inputs="group"))
    quantize(run_of(demo, calib, tmp_path / "out", "recorder", spill=spill))
    seen = sys.modules["hostile_recorder"].seen
    original = load_whole(open_weights(demo), torch.device("cpu"))
    quantized = load_whole(open_weights(tmp_path / "out"), torch.device("cpu"))
    for block in ("model.layers.0", "model.layers.3"):
        for group in (("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"), ("mlp.down_proj",)):
            names = tuple(f"{block}.{path}" for path in group)
            for index, model in enumerate((quantized, original)):
                for page, due in read_by(model, calib, processor, names[0]):
                    found = seen[block, (names,), page][index]
                    assert found.shape == due.shape
                    # Bf16 attention of a batch of one is not bit for bit that of a block on its own.
                    assert torch.allclose(found.float(), due.float(), rtol=0.02, atol=0.02 * due.abs().max().item())
    first = seen["model.layers.0", (tuple(f"model.layers.0.self_attn.{part}_proj" for part in "qkv"),), page]
    last = seen["model.layers.3", (("model.layers.3.mlp.down_proj",),), page]
    assert torch.equal(*first), "nothing is quantized before the first block"
    assert not torch.equal(*last)


def test_a_method_that_sees_blocks_may_see_the_full_precision_path_too(
    demo: Path, calib: str, processor: Any, plugins: PluginFolder, tmp_path: Path
) -> None:
    plugins.toy()
    plugins.module("recorder", RECORDER.format(inputs="block"))
    quantize(run_of(demo, calib, tmp_path / "out", "recorder"))
    seen = {block: batch for (block, _, _), batch in sys.modules["hostile_recorder"].seen.items()}
    assert torch.equal(*seen["model.layers.0"])
    assert not torch.equal(*seen["model.layers.1"])
    names = {block for block, _, _ in sys.modules["hostile_recorder"].seen}
    assert len(names) == 4


@pytest.mark.parametrize("options", [{}, {"quant_vit": True}], ids=["decoder", "vision"])
@pytest.mark.parametrize("method", ["gptaq", "fp8"])
def test_a_run_resumes_in_another_process_to_the_same_bytes(
    method: str, options: dict[str, Any], plugins: PluginFolder, tmp_path: Path
) -> None:
    """Of a method that sees groups and both paths, and of one whose blocks run once."""
    plugins.distribution("gptaq")
    write_checkpoint(tmp_path / "model")
    run = run_of(tmp_path / "model", "synthetic:2", tmp_path / "straight", method, options=options)
    quantize(run)
    stopped = run.model_copy(update={"output": tmp_path / "stopped", "spill": True})
    # Killed with a part on the disk that the journal does not know yet, then once more.
    kill_after("block-00000", stopped)
    kill_after("block-00001", stopped, resume=True)
    quantize(stopped, resume=True)
    weights = "model.safetensors"
    assert digest(tmp_path / "stopped" / weights) == digest(tmp_path / "straight" / weights)
