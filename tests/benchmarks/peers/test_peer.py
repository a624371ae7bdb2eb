"""What another tool writes becomes a sound checkpoint with the tool's own weights, or none at all."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from torch import Tensor

from hyocr_core import quantize, verify
from hyocr_core.errors import CalibrationError, RunError
from hyocr_core.models.load import open_weights
from hyocr_core.models.spelling import memory_name, spellings
from hyocr_core.pages.processor import load_processor

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks/peers"))

import peer
import saved

LAYER = "model.language_model.layers.0.mlp.down_proj"
ANSWERS = ("traixese $720.31", "wuzuqeal-glouxazeax-")


@dataclass
class Tool:
    """Stands in for a tool: saves a finished checkpoint as its own, with the faults that the real ones have.

    spoilt: the parameter that it holds otherwise than it saved it.
    """

    finished: Path
    spoilt: str | None = None
    jobs: list[peer.Job] = field(default_factory=list)

    def __call__(self, job: peer.Job) -> Mapping[str, Tensor]:
        self.jobs.append(job)
        stored = open_weights(self.finished)
        held = {memory_name(name): value for name, value in stored.read(stored.tensors).items()}
        if self.spoilt:
            held[self.spoilt][0, 0] += 0.01
        job.staged.mkdir()
        save_file(self._tensors(), job.staged / "model.safetensors")
        (job.staged / "config.json").write_text(json.dumps(self._config()))
        (job.staged / "tokenizer_config.json").write_text("{}")
        return held

    def _tensors(self) -> dict[str, Tensor]:
        """By their names in memory, as GPTQModel has them."""
        return {in_memory(name): value for name, value in load_file(self.finished / "model.safetensors").items()}

    def _config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.finished / "config.json").read_text())
        written = config["quantization_config"]
        if "ignore" in written:  # as llm-compressor names them
            written["ignore"] = [spellings(name)[0] for name in written["ignore"]]
        written.pop("modules_to_not_convert", None)
        written["meta"] = {"quantizer": ["tool:1"], "offload_to_disk_path": "/tmp/tool"}  # noqa: S108
        return {"quantization_config": written, "use_cache": False, "model_type": "hunyuan_vl"}


def in_memory(name: str) -> str:
    layer, _, local = name.rpartition(".")
    return f"{spellings(layer)[1]}.{local}"


@pytest.fixture(scope="module", params=["gptq", "compressed-tensors"])
def finished(request: pytest.FixtureRequest, demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo in four bits, by hyocr."""
    folder: Path = tmp_path_factory.mktemp("finished") / request.param
    quantize(model=str(demo), method="rtn", output=folder, options={"format": request.param})
    return folder


@pytest.fixture
def lines(tmp_path: Path, calib: str) -> Path:
    """Two calibration lines, with their images."""
    folder = tmp_path / "data"
    shutil.copytree(Path(calib).with_name("images"), folder / "images")
    rows = Path(calib).read_text(encoding="utf-8").splitlines()[:2]
    (folder / "lines.jsonl").write_text("\n".join(rows) + "\n", encoding="utf-8")
    return folder / "lines.jsonl"


@pytest.mark.needs_methods
def test_a_sound_checkpoint_with_the_tools_own_bytes(finished: Path, demo: Path, lines: Path, tmp_path: Path) -> None:
    output, tool = tmp_path / "deep/output", Tool(finished)
    record = peer.run("torch", demo, lines, output, "four", tool)
    assert not verify(output, original=str(demo)).faults
    (job,) = tool.jobs
    save_file(tool._tensors(), tmp_path / "again.safetensors")
    assert (output / "model.safetensors").read_bytes() == (tmp_path / "again.safetensors").read_bytes()
    config = json.loads((output / "config.json").read_text())
    assert config.pop("quantization_config")["meta"] == {"quantizer": ["tool:1"]}
    assert config == json.loads((demo / "config.json").read_text())
    assert (output / "tokenizer_config.json").read_bytes() == (demo / "tokenizer_config.json").read_bytes()
    assert json.loads((output / "peer.json").read_text())["versions"]["torch"] == torch.__version__
    assert (record.setting, record.lines, job.setting) == ("four", 2, "four")
    assert list(output.parent.iterdir()) == [output]


@pytest.mark.needs_methods
@pytest.mark.parametrize("spoilt", [f"{LAYER}.weight", "model.vision_tower.layers.0.self_attn.q_proj.weight"])
def test_no_checkpoint_whose_weights_are_not_the_tools(
    finished: Path, demo: Path, lines: Path, tmp_path: Path, spoilt: str
) -> None:
    output = tmp_path / "output"
    with pytest.raises(RunError, match=f"{spoilt} is not what the tool held"):
        peer.run("torch", demo, lines, output, "four", Tool(finished, spoilt))
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


@pytest.mark.needs_methods
def test_a_parameter_that_the_tool_has_not(finished: Path) -> None:
    stored = open_weights(finished)
    weights = {memory_name(name): value for name, value in stored.read(stored.tensors).items()}
    del weights[f"{LAYER}.weight"]
    with pytest.raises(RunError, match=r"layers.0.mlp.down_proj.weight is stored, but the tool holds no such"):
        saved.check_kept(finished, weights)


@pytest.mark.parametrize(
    ("method", "key"), [("compressed-tensors", "ignore"), ("awq", "modules_to_not_convert"), ("gptq", None)]
)
def test_what_is_left_out_by_its_name_in_memory(method: str, key: str | None) -> None:
    written = {"quant_method": method, "bits": 4} | ({key: ["vit.layers.0.mlp.dense_h_to_4h"]} if key else {})
    before = json.dumps(written)
    found = saved.mended(written, ["model.vision_tower.layers.0.mlp.fc1", "lm_head"])
    left = {key: ["model.vision_tower.layers.0.mlp.fc1", "lm_head"]} if key else {}
    assert found == {"quant_method": method, "bits": 4} | left
    assert json.dumps(written) == before


def test_samples_are_whole_conversations_in_order(demo: Path, lines: Path) -> None:
    tokenizer = load_processor(demo).tokenizer
    samples = peer.read_samples(demo, lines, 2048)
    for sample, answer in zip(samples, ANSWERS, strict=True):
        text = tokenizer.decode(sample["input_ids"][0])
        assert text.endswith(f"{answer}{tokenizer.eos_token}")
        assert text.count("Extract the text in the image.") == 1
        assert set(sample) == {"input_ids", "mm_token_type_ids", "pixel_values", "image_grid_thw"}


def test_a_line_that_cannot_be_used_stops_it(demo: Path, lines: Path) -> None:
    (lines.parent / "images/calib-0001.png").unlink()
    with pytest.raises(CalibrationError, match=r"lines.jsonl:2: .*calib-0001.png"):
        peer.read_samples(demo, lines, 2048)


def call(*arguments: object, package: str = "torch") -> Result:
    def never(_job: peer.Job) -> Mapping[str, Tensor]:
        raise AssertionError

    return CliRunner().invoke(peer.command(package, ("four",), never, None), list(map(str, arguments)))


def refused(result: Result, reason: str) -> None:
    assert result.exit_code == 2
    assert reason in result.stderr.splitlines()[-1]
    assert not result.stdout


def test_bad_input(demo: Path, lines: Path, tmp_path: Path, copy_quantized: Path) -> None:
    output = tmp_path / "output"
    rest = ("--output", output, "--setting", "four")
    refused(call("--model", tmp_path / "none", "--calib", lines, *rest), "none is not a folder")
    refused(call("--model", copy_quantized, "--calib", lines, *rest), "is quantized already")
    refused(call("--model", demo, "--calib", tmp_path / "none.jsonl", *rest), "none.jsonl: cannot be read")
    refused(call("--model", demo, "--calib", lines, *rest, package="no_such_tool"), "has no no_such_tool: use that")
    refused(call("--model", demo, "--calib", lines, "--output", output, "--setting", "five"), "'five' is not 'four'")
    assert not output.exists()
    output.mkdir()
    refused(call("--model", demo, "--calib", lines, *rest), "output is there already")


@pytest.fixture
def copy_quantized(demo: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "quantized"
    shutil.copytree(demo, folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"quantization_config": {"quant_method": "gptq"}}))
    return folder
