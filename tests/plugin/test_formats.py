"""A checkpoint format from another distribution, and formats that cannot be used."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch
from safetensors.torch import load_file, save_file

from hyocr_core.errors import CheckpointError, FormatError, MethodError
from hyocr_core.models.load import open_weights
from hyocr_core.models.rounded import RoundedCheckpoint
from hyocr_core.pages.sources import open_source
from hyocr_core.plugin.formats import installed_formats, load_format, usual_formats
from hyocr_core.plugin.registry import load_method
from hyocr_core.run.dry_run import plan_run
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.verification.verify import verify
from tests.evaluating import evaluate

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

LAYER = "model.layers.1.mlp.down_proj"
BUILT_IN = ["awq", "float-quantized", "fp8", "gptq", "int-quantized", "naive-quantized", "pack-quantized"]


@pytest.fixture
def written(plugins: PluginFolder, demo: Path, tmp_path: Path) -> Path:
    """The demo checkpoint in format `plain8`; afterwards its method is no longer installed, the format is."""
    plugins.distribution("own_format")
    plan = plan_run(RunConfig(model=str(demo), output=tmp_path / "out", method="plain8", device="cpu"))
    quantize(RunConfig(model=str(demo), output=tmp_path / "out", method="plain8", device="cpu"))
    assert {row.stored for row in plan.linears} == {None, "plain int8"}
    assert sum(row.after or 0 for row in plan.sizes) == sum(t.nbytes for t in load_file(weights(tmp_path)).values())
    assert [runtime.loads for runtime in plan.runtimes] == ["no", "no", "unsure"]
    plugins.distribution("own_format", leave_out="hyocr.methods")
    with pytest.raises(MethodError):
        load_method("plain8")
    return tmp_path / "out"


def weights(folder: Path) -> Path:
    return next(folder.rglob("model.safetensors"))


def test_the_built_in_formats_are_registered_like_any_other() -> None:
    assert [entry.name for entry in installed_formats() if entry.distribution == "hyocr-core"] == BUILT_IN
    assert [load_format(name).__name__ for name in ("gptq", "naive-quantized")] == ["GptqFormat", "CompressedFp8Format"]


def test_it_is_verified_beside_its_original(written: Path, demo: Path) -> None:
    result = verify(written, original=str(demo))
    assert (result.faults, result.notes, result.quant_method) == ((), (), "plain8")
    assert all(layer.sqnr_db is not None and layer.sqnr_db > layer.least_db == 26 for layer in result.layers)
    assert [runtime.why for runtime in result.runtimes][::2] == [
        "it has no plain8",
        "needs a package that nobody wrote",
    ]


def test_its_own_checks_are_made(written: Path) -> None:
    config = json.loads((written / "config.json").read_text())
    config["quantization_config"]["even"] = True
    (written / "config.json").write_text(json.dumps(config))
    faults = [f"{fault.place}: {fault.problem}" for fault in verify(written).faults]
    assert f"{LAYER}.codes: has odd codes, but even is true" in faults
    assert "config.json: quantization_config: even is True, hyocr wrote False" in faults
    config["quantization_config"]["even"] = "no"
    (written / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="even: 'no' is not read by hyocr, only True or False"):
        verify(written)


def test_it_is_read_and_rounded_in(written: Path, demo: Path, heldout: str) -> None:
    pages = open_source(heldout)[:8]
    result = evaluate(written, pages, baseline=demo, rounded=True)
    assert result.model.runtime == "dequant"
    assert result.model.cer is not None
    assert result.model.cer < 0.05
    name = f"{LAYER}.weight"
    rounded = RoundedCheckpoint(open_weights(demo), open_weights(written)).read([name])[name]
    assert torch.equal(rounded, open_weights(written).read([name])[name])


def test_damage_is_found(written: Path, demo: Path) -> None:
    tensors = load_file(written / "model.safetensors")
    tensors[f"{LAYER}.scale"] *= 2
    save_file(tensors, written / "model.safetensors", metadata={"format": "pt"})
    faults = {fault.place: fault.problem for fault in verify(written, original=str(demo)).faults}
    assert "is not the original's weight" in faults[LAYER]


def test_without_the_distribution_it_is_named_with_what_is_known(written: Path, plugins: PluginFolder) -> None:
    for info in plugins.folder.glob("hyocr_format_plain8-*"):
        shutil.rmtree(info)
    for attempt in (verify, open_weights):
        with pytest.raises(CheckpointError, match="quant_method: 'plain8' is not read by hyocr, only awq or") as caught:
            attempt(written)
        assert "\n" not in str(caught.value)


FORMAT = """
from hyocr_core.formats import Fp8Format
class Mine(Fp8Format):
    {}
"""


@pytest.mark.parametrize(
    ("source", "value", "problem"),
    [
        ("raise RuntimeError('on import')", "Mine", "importing 'hostile_odd:Mine' failed: RuntimeError: on import"),
        ("Mine = 8", "Mine", "hostile_odd:Mine is no class that derives from hyocr_core.formats.Format"),
        (FORMAT.format("api_version = 7"), "Mine", "it speaks plugin API 7, this hyocr-core speaks 1"),
        (FORMAT.format("@classmethod\n    def usual(cls): return 1 / 0"), "Mine", "usual: ZeroDivisionError"),
        (
            "from hyocr_core.formats import Format\nclass Mine(Format):\n    api_version = 1\n"
            "    def layout(self, shape): return {}\n",
            "Mine",
            "its class Mine has no method bound",
        ),
        (
            "from hyocr_core.formats import Format\nclass Mine(Format):\n    pass\n",
            "Mine",
            "its class Mine does not say which plugin API it speaks; write api_version = 1",
        ),
    ],
)
def test_a_format_that_cannot_be_used_is_named_and_spares_the_others(
    source: str, value: str, problem: str, plugins: PluginFolder
) -> None:
    (plugins.folder / "hostile_odd.py").write_text(source, encoding="utf-8")
    plugins.metadata("hyocr-odd", "0.1", {"odd": f"hostile_odd:{value}"}, "odd", group="hyocr.formats")
    with pytest.raises(FormatError) as caught:
        load_format("odd")
    assert str(caught.value).startswith("format odd (hyocr-odd 0.1): ")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "awq, 4 bits" in usual_formats()


def test_two_distributions_that_claim_one_name_are_both_named(
    plugins: PluginFolder, demo: Path, tmp_path: Path
) -> None:
    plugins.distribution("own_format")
    points = {"plain8": "hyocr_format_plain8.plain8:Plain8Format"}
    plugins.metadata("hyocr-other", "2.0", points, "other", group="hyocr.formats")
    with pytest.raises(FormatError) as caught:
        load_format("plain8")
    assert str(caught.value) == (
        "the format plain8 is offered by hyocr-format-plain8 0.3.0 and hyocr-other 2.0; uninstall all but one"
    )
    folder = shutil.copytree(demo, tmp_path / "copy")
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "plain8", "left_out": []}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(FormatError, match="uninstall all but one"):
        verify(folder)
