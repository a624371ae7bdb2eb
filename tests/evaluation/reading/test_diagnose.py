"""Where a model departs from its baseline: against Transformers' own forward, and on checkpoints with seeded faults."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import HunYuanVLForConditionalGeneration

from hyocr_core.contract.page_source import Record
from hyocr_core.evaluation.scores.result import BlockError, EvalResult, LayerError
from hyocr_core.models.load import open_weights
from hyocr_core.pages.processor import load_processor
from hyocr_core.pages.samples import build_sample
from hyocr_core.run.quantize import quantize
from hyocr_core.runtimes.forward import set_forward
from hyocr_core.settings.run_config import RunConfig
from tests.evaluating import evaluate

pytestmark = pytest.mark.needs_methods

MakePages = Callable[..., list[Record]]


def pages_of_one_size(pages: MakePages, count: int) -> list[Record]:
    return [record for index, record in enumerate(pages(2 * count)) if index % 3][:count]


class Watched:
    """A model of Transformers, and what its decoder layers were given and gave."""

    def __init__(self, folder: Path) -> None:
        model: Any = HunYuanVLForConditionalGeneration
        self.model = model.from_pretrained(folder).eval()
        set_forward(self.model, "reference")
        self.layers = self.model.model.language_model.layers
        self.calls: list[tuple[Any, Any, Tensor]] = []
        for layer in self.layers:
            layer.register_forward_hook(lambda _, *call: self.calls.append(call), with_kwargs=True)

    def run(self, inputs: dict[str, Tensor]) -> list[tuple[Any, Any, Tensor]]:
        self.calls = []
        self.model(**inputs, use_cache=False)
        return list(self.calls)


def norm(tensors: list[Tensor]) -> float:
    return math.sqrt(math.fsum(value * value for tensor in tensors for value in tensor.flatten().tolist()))


@torch.no_grad()
def by_hand(folder: Path, baseline: Path, records: list[Record]) -> list[tuple[float, float]]:
    """(error, drift) of every decoder block, with Transformers' own masks and positions, one page at a time."""
    before, after, processor = Watched(baseline), Watched(folder), load_processor(baseline)
    parts: list[dict[str, list[Tensor]]] = [
        {"added": [], "error": [], "output": [], "drift": []} for _ in before.layers
    ]
    for record in records:
        inputs = build_sample(record, processor, with_answer=False).inputs
        prompt = inputs["input_ids"]
        written = before.model.generate(**inputs, attention_mask=torch.ones_like(prompt))[:, :-1]
        kinds = torch.zeros_like(written)
        kinds[:, : prompt.shape[1]] = inputs["mm_token_type_ids"]
        whole = inputs | {"input_ids": written, "mm_token_type_ids": kinds}
        ours, theirs = before.run(whole), after.run(whole)
        for part, layer, (args, kwargs, output), (_, _, own) in zip(parts, after.layers, ours, theirs, strict=True):
            part["added"].append(output - args[0])
            part["error"].append(layer(*args, **kwargs) - output)
            part["output"].append(output)
            part["drift"].append(own - output)
    return [(norm(part["error"]) / norm(part["added"]), norm(part["drift"]) / norm(part["output"])) for part in parts]


def test_blocks_are_what_they_are_by_hand(tiny: Path, noisy: Path, pages: MakePages) -> None:
    records = pages_of_one_size(pages, 3)
    result = evaluate(noisy, records, baseline=tiny)
    assert [block.name for block in result.blocks] == ["model.layers.0", "model.layers.1"]
    expected = by_hand(noisy, tiny, records)
    assert all(0.01 < error < 1 for error, _ in expected)
    assert [(block.error, block.drift) for block in result.blocks] == [
        pytest.approx(pair, rel=1e-3) for pair in expected
    ]
    assert result.layers == (), "nothing is quantized"


def test_a_model_does_not_depart_from_itself(tiny: Path, pages: MakePages) -> None:
    result = evaluate(tiny, pages(2), baseline=tiny)
    assert [(block.error, block.drift) for block in result.blocks] == [(0, 0), (0, 0)]
    assert evaluate(tiny, pages(2)).blocks == ()


def test_layers_are_what_they_are_by_hand(tiny: Path, by_rtn: Path, pages: MakePages) -> None:
    records = pages_of_one_size(pages, 1)
    layers = {layer.name: layer for layer in evaluate(by_rtn, records, baseline=tiny).layers}
    assert len(layers) == 2 * 7
    layer = layers["model.layers.1.mlp.down_proj"]
    weight, found = (
        open_weights(folder).read([f"{layer.name}.weight"])[f"{layer.name}.weight"] for folder in (tiny, by_rtn)
    )
    given = inputs_of_layer(tiny, records[0], "1.mlp.down_proj")
    assert layer.shape == tuple(weight.shape)
    outputs, inputs = layer.shape
    groups = inputs // 128
    # Codes, fp32 scales, zero points of four bits and an int32 for every input channel.
    assert layer.bits == 4 + (32 + 4) * groups / inputs + 32 / outputs
    assert layer.weight_error == pytest.approx(norm([found - weight]) / norm([weight]))
    change = given @ (found - weight).T
    assert layer.output_error == pytest.approx(norm([change]) / norm([given @ weight.T]), rel=1e-3)
    assert layer.weight_max == weight.abs().max()
    assert layer.input_max == pytest.approx(given.abs().max().item())


@torch.no_grad()
def inputs_of_layer(folder: Path, record: Record, name: str) -> Tensor:
    """Along the prompt and the answer."""
    watched, processor = Watched(folder), load_processor(folder)
    inputs = build_sample(record, processor, with_answer=False).inputs
    prompt = inputs["input_ids"]
    written = watched.model.generate(**inputs, attention_mask=torch.ones_like(prompt))[:, :-1]
    kinds = torch.zeros_like(written)
    kinds[:, : prompt.shape[1]] = inputs["mm_token_type_ids"]
    given: list[Tensor] = []
    watched.layers.get_submodule(name).register_forward_pre_hook(lambda _, args: given.append(args[0]))
    watched.run(inputs | {"input_ids": written, "mm_token_type_ids": kinds})
    return given[0][0]


def damaged(folder: Path, target: Path, edit: Callable[[dict[str, Tensor]], object]) -> Path:
    """A copy that no longer says how it was made, with edited tensors."""
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns("hyocr_report.json"))
    tensors = load_file(target / "model.safetensors")
    edit(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def worst(result: EvalResult) -> tuple[BlockError, LayerError]:
    return max(result.blocks, key=lambda block: block.error), max(result.layers, key=lambda layer: layer.output_error)


@pytest.mark.parametrize("layer", ["self_attn.v_proj", "mlp.gate_proj", "mlp.down_proj"])
@pytest.mark.parametrize("block", [0, 2])
def test_a_layer_with_doubled_scales_is_found(
    demo: Path, demo_by_rtn: Path, pages: MakePages, tmp_path: Path, block: int, layer: str
) -> None:
    name = f"model.layers.{block}.{layer}"
    folder = damaged(demo_by_rtn, tmp_path / "damaged", lambda tensors: tensors[f"{name}.scales"].mul_(2))
    result = evaluate(folder, pages(2), baseline=demo, max_new_tokens=4)
    found_block, found_layer = worst(result)
    assert found_block.name == f"model.layers.{block}"
    assert found_layer.name == name
    assert found_layer.weight_error == pytest.approx(1, abs=0.1)
    before = result.blocks[:block]
    assert all(one.error < found_block.error / 2 and one.drift < 0.3 for one in before)


@pytest.fixture(scope="module")
def demo_by_rtn(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rtn") / "out"
    quantize(RunConfig(model=str(demo), output=folder, method="rtn"))
    return folder


def test_folded_scales_are_no_error(tiny: Path, pages: MakePages, tmp_path: Path) -> None:
    folder = tmp_path / "awq"
    options = {"bits": 8, "format": "compressed-tensors", "quant_vit": True, "group_size": 64, "rounding": "nearest"}
    quantize(
        RunConfig(model=str(tiny), output=folder, method="awq", calib="synthetic:2", num_samples=2, options=options)
    )
    name = "model.layers.0.input_layernorm.weight"
    norms = [open_weights(each).read([name])[name] for each in (tiny, folder)]
    assert not torch.equal(*norms), "scales were folded"
    result = evaluate(folder, pages(1), baseline=tiny)
    assert {layer.name.partition(".")[0] for layer in result.layers} == {"model", "vit"}
    assert all(layer.weight_error < 0.02 and layer.output_error < 0.02 for layer in result.layers)
    assert all(block.error < 0.05 for block in result.blocks)


def test_the_vision_tower_is_compared_where_it_is_quantized(demo: Path, pages: MakePages, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    options = {"quant_vit": True, "activation_scheme": "dynamic"}
    quantize(RunConfig(model=str(demo), output=folder, method="fp8", options=options))
    result = evaluate(folder, pages(2), baseline=demo, max_new_tokens=2)
    towers = [block.name.partition(".")[0] for block in result.blocks]
    assert towers == sorted(towers, reverse=True), "vision first"
    assert towers.count("model") == 4
    assert "vit.perceive" in [block.name for block in result.blocks]
    assert "vit.perceive.mlp" in [layer.name for layer in result.layers]
    assert all(0 < block.error < 0.5 for block in result.blocks)
    assert all(0.01 < layer.weight_error < 0.06 and layer.bits == pytest.approx(8, abs=0.1) for layer in result.layers)


def test_quantized_inputs_count(demo: Path, pages: MakePages, tmp_path: Path) -> None:
    static = tmp_path / "static"
    options = {"activation_scheme": "static"}
    quantize(
        RunConfig(model=str(demo), output=static, method="fp8", calib="synthetic:4", num_samples=4, options=options)
    )
    name = "model.layers.1.mlp.down_proj"
    folder = damaged(static, tmp_path / "damaged", lambda tensors: tensors[f"{name}.input_scale"].div_(64))
    results = [evaluate(each, pages(1), baseline=demo, max_new_tokens=2) for each in (static, folder)]
    sound, clipped = ({layer.name: layer for layer in result.layers} for result in results)
    assert clipped[name].weight_error == sound[name].weight_error
    assert clipped[name].output_error > 0.5 > 4 * sound[name].output_error
    assert worst(results[1])[1].name == name


def test_a_few_tokens_are_enough(tiny: Path, noisy: Path, pages: MakePages, monkeypatch: pytest.MonkeyPatch) -> None:
    records = pages_of_one_size(pages, 3)
    alone, whole = (evaluate(noisy, some, baseline=tiny).blocks for some in (records[:1], records))
    assert alone != whole
    monkeypatch.setattr("hyocr_core.evaluation.reading.diagnose.TOKENS", 1)
    for mine, first in zip(evaluate(noisy, records, baseline=tiny).blocks, alone, strict=True):
        assert (mine.error, mine.drift) == pytest.approx((first.error, first.drift), rel=1e-4)


def test_models_of_other_depth_are_not_compared_block_by_block(tiny: Path, demo: Path, pages: MakePages) -> None:
    result = evaluate(tiny, pages(1), baseline=demo, max_new_tokens=2)
    assert result.comparison is not None
    assert (result.blocks, result.layers) == ((), ())
