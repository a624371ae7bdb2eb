"""Several methods in one checkpoint: a recipe with the methods of this repository and one from outside."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from hyocr_core import Batches, Block, Collected, MethodConfig
from hyocr_core.checkpoint.quant_report import QuantReport
from hyocr_core.errors import OutputError
from hyocr_core.models.load import load_whole, open_weights
from hyocr_core.models.rounded import RoundedCheckpoint
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source, select
from hyocr_core.plugin.method import Method
from hyocr_core.report.kinds import kinds_of
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.run_file import merge_run_config
from hyocr_core.verification.verify import verify
from tests.conftest import PluginFolder

pytestmark = pytest.mark.needs_methods

RULES: list[dict[str, Any]] = [
    {"match": "vit", "method": "fp8_dynamic"},
    {"match": "model.layers.0", "method": "smoothquant"},
    {"match": "*.down_proj", "method": "gptq", "options": {"bits": 8}},
    {"match": "model.layers.3.self_attn.o_proj", "method": "none"},
    {"match": "*", "method": "gptq", "options": {"weighting": "balanced"}},
]
KINDS = {
    "gptq: int4, groups of 128, symmetric": 17,
    "gptq: int8, groups of 128, symmetric": 3,
    "smoothquant: int8, scale per output channel, dynamic activations": 7,
    "fp8: fp8, scale per output channel, dynamic activations": 25,
}


@dataclass(frozen=True)
class Seen:
    """What a call of `calibrate` was shown. layers: of the block."""

    method: str
    layers: tuple[str, ...]
    bits: int | None
    weighted: bool
    referenced: bool


@dataclass(frozen=True)
class Done:
    """A finished run. run: its configuration. seen: what its methods were shown."""

    run: RunConfig
    report: QuantReport
    seen: list[Seen]

    @property
    def folder(self) -> Path:
        return self.run.output


@pytest.fixture(scope="module")
def smoothquant(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The method of the tests' own distribution, installed."""
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        PluginFolder(folder).distribution("smoothquant")
        yield


@pytest.fixture(scope="module")
def done(demo: Path, calib: str, smoothquant: None, tmp_path_factory: pytest.TempPathFactory) -> Done:
    given = {"model": str(demo), "output": tmp_path_factory.mktemp("recipe") / "out", "device": "cpu"}
    run = merge_run_config(None, {**given, "calib": calib, "num_samples": 4, "recipe": RULES}, ()).run
    seen: list[Seen] = []
    calibrate = Method.calibrate

    def note(self: Method, block: Block, batches: Batches, config: MethodConfig) -> dict[str, Collected]:
        [batch, *_] = batches
        bits: int | None = getattr(config, "bits", None)
        shown = batch.weights is not None, batch.reference is not None
        seen.append(Seen(self.spec.name, tuple(block.layers), bits, *shown))
        return calibrate(self, block, batches, config)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Method, "calibrate", note)
        return Done(run, quantize(run), seen)


def test_each_method_sees_its_own_layers_and_what_it_asked_for(done: Done) -> None:
    own = {layer.name: done.report.method_of(layer).name for layer in done.report.layers}
    for call in done.seen:
        assert {own[name] for name in call.layers} == {call.method}
        assert call.referenced == (call.method == "gptq")
        assert call.weighted == (call.method == "gptq" and call.bits == 4)
        if call.method == "gptq":
            assert call.bits == (8 if call.layers[0].endswith("down_proj") else 4)
    # Dynamic FP8 learns nothing, and is not asked to.
    assert [call.method for call in done.seen].count("smoothquant") == 1
    assert {call.method for call in done.seen} == {"gptq", "smoothquant"}


def test_report_and_card_name_all_methods(done: Done) -> None:
    report, card = done.report, (done.folder / "README.md").read_text(encoding="utf-8")
    assert report.title == "gptq + smoothquant + fp8"
    assert report.rescaled == (
        "model.layers.0.input_layernorm.weight",
        "model.layers.0.post_attention_layernorm.weight",
    )
    for kind, count in KINDS.items():
        assert f"| {kind} | {count} linears |" in card
    assert "`gptq` (hyocr-plugin-gptq " in card
    assert card.count("Options of ") == 3
    config = json.loads((done.folder / "config.json").read_text(encoding="utf-8"))["quantization_config"]
    assert config["format"] == "mixed-precision"
    assert {group["format"] for group in config["config_groups"].values()} == {
        "pack-quantized", "int-quantized", "float-quantized"
    }  # fmt: skip


def test_verify_bounds_each_layer_by_its_own_rule(done: Done, demo: Path) -> None:
    result = verify(done.folder, original=str(demo))
    assert result.faults == ()
    least = {layer.name: layer.least_db for layer in result.layers}
    stored = open_weights(done.folder).formats  # type: ignore[union-attr]
    assert least == {name: stored.of(name).bound.decibels for name in least}  # type: ignore[union-attr]
    assert len(set(least.values())) > 1


def test_transformers_reads_as_the_unpacked_weights(done: Done, calib: str, processor: Any) -> None:
    _assert_read_alike(done.folder, calib, processor)


def test_the_vision_tower_in_static_fp8_and_in_integers(demo: Path, calib: str, processor: Any, tmp_path: Path) -> None:
    rules = [
        {"match": ["vit.layers.0", "vit.perceive"], "method": "fp8_static"},
        {"match": "vit", "method": "rtn", "options": {"bits": 8, "group_size": -1}},
        {"match": "model.layers.3.mlp", "method": "gptq"},
    ]
    given = {"model": str(demo), "output": tmp_path / "out", "device": "cpu", "calib": calib, "num_samples": 2}
    report = quantize(merge_run_config(None, {**given, "recipe": rules}, ()).run)
    assert kinds_of(report) == {
        "fp8: fp8, one scale, static activations": 7,
        "rtn: int8, per output channel, symmetric": 18,
        "gptq: int4, groups of 128, symmetric": 3,
    }
    assert verify(tmp_path / "out", original=str(demo)).faults == ()
    _assert_read_alike(tmp_path / "out", calib, processor)


def _assert_read_alike(folder: Path, calib: str, processor: Any) -> None:
    """Transformers has the very weights that hyocr unpacks, and predicts the same."""
    pytest.importorskip("compressed_tensors")
    weights, device = open_weights(folder), torch.device("cpu")
    native, emulated = (load_whole(weights, device, native=each) for each in (True, False))
    for record in select(open_source(calib), 2, 1):
        sample = build_sample(record, processor, with_answer=True).inputs
        with torch.no_grad():
            answers = [model.skeleton(**sample).logits.argmax(-1)[:, -8:] for model in (native, emulated)]
        assert torch.equal(*answers)
    own = dict(emulated.skeleton.named_parameters())
    for name, parameter in native.skeleton.named_parameters():
        if name in own:
            assert torch.equal(parameter, own[name]), name


def test_rounded_to_nearest_each_in_its_format(done: Done, demo: Path) -> None:
    view = RoundedCheckpoint(open_weights(demo), open_weights(done.folder))
    assert len(view.shapes) == len(done.report.layers)


def test_an_interrupted_run_goes_on_to_the_same_bytes_by_the_same_recipe_only(
    done: Done, tmp_path: Path, stop_in_block_2: Callable[[RunConfig], None]
) -> None:
    run = done.run.model_copy(update={"output": tmp_path / "again"})
    stop_in_block_2(run)
    other = [rule for rule in done.run.recipe or () if rule.options != {"bits": 8}]
    with pytest.raises(OutputError, match="recipe: "):
        quantize(run.model_copy(update={"recipe": tuple(other)}), resume=True)
    report = quantize(run, resume=True)
    assert report.resumed_after_block == 1
    assert _digest(run.output) == _digest(done.folder)


def _digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()
