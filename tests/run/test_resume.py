"""What goes on by itself, and what refuses to: a run in which anything has changed that its bytes depend on."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import torch

from hyocr_core.checkpoint.sealed import unseal
from hyocr_core.errors import ConfigError, OutputError
from hyocr_core.plugin.registry import load_method
from hyocr_core.progress import Silent
from hyocr_core.run import assignment, job
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig

pytestmark = pytest.mark.needs_methods

SAMPLES = 4
PACKAGES = ("torch", "transformers", "safetensors", "pillow")
CALIBRATION: dict[str, Any] = {
    "calib": "synthetic:4",
    "task": "table",
    "system": "Be exact.",
    "answers": "none",
    "num_samples": SAMPLES - 1,
    "max_pixels": 65536,
    "seed": 1,
    "keep_duplicates": True,
}
OPTIONS: dict[str, Any] = {
    "format": "compressed-tensors",
    "ignore": ["*.down_proj"],
    "keep_ends": 1,
    "quant_vit": True,
    "weighting": "balanced",
    "bits": 8,
    "group_size": 64,
    "sym": False,
    "mse": False,
    "damp_percent": 0.02,
    "block_size": 64,
    "desc_act": False,
    "target_strength": 0.5,
    "refine": 1,
}
TOGETHER: dict[str, dict[str, Any]] = {"sym": {"format": "compressed-tensors"}, "quant_vit": {"group_size": 64}}
"""What else has to change for an option to be one that a run takes."""


@dataclass(frozen=True)
class World:
    """What a run can be begun in: its settings, and patches of what else its bytes depend on."""

    settings: Mapping[str, Any] = field(default_factory=dict)
    patch: Callable[[pytest.MonkeyPatch], None] = lambda _patch: None


def another_method(**changes: Any) -> World:
    def load(selector: str) -> Any:
        method = load_method(selector)
        return replace(method, entry=replace(method.entry, **changes))

    return World(patch=lambda patch: patch.setattr(assignment, "load_method", load))


def another_package(name: str) -> World:
    def version(asked: str) -> str:
        return "0" if asked == name else metadata.version(asked)

    return World(patch=lambda patch: patch.setattr("hyocr_core.resources.version", version))


CHANGED: dict[str, World] = {
    "method.name": World({"method": "rtn"}),
    "method.distribution": another_method(distribution="other"),
    "method.version": another_method(version="0"),
    "vision": World({"vision": "fp8"}),
    "recipe": World({"method": None, "recipe": [{"match": "model.layers", "method": "gptq"}]}),
    "keep_head": World({"keep_head": True}),
    "forward": World({"forward": "transformers"}),
    "decoding": World({"answers": "generate"}),
    "device": World(patch=lambda patch: patch.setattr(job, "pick_device", lambda *_: torch.device("cpu:0"))),
    "threads": World(patch=lambda patch: patch.setattr(torch, "get_num_threads", lambda: 77)),
    "versions.hyocr-core": World(patch=lambda patch: patch.setattr("hyocr_core.resources.__version__", "0")),
    "versions.python": World(patch=lambda patch: patch.setattr(platform, "python_version", lambda: "0")),
    **{f"versions.{name}": another_package(name) for name in PACKAGES},
    **{f"calibration.{key}": World({key: value}) for key, value in CALIBRATION.items()},
    **{f"options.{key}": World({"options": TOGETHER.get(key, {}) | {key: value}}) for key, value in OPTIONS.items()},
}
"""A change of every key of the fingerprint; those below `model` are in a test of their own."""


@pytest.fixture(scope="module")
def begun(
    demo: Path, calib: str, stop_in_block_2: Callable[[RunConfig], None], tmp_path_factory: pytest.TempPathFactory
) -> RunConfig:
    """A run that was stopped in block 2; no test that is refused changes anything of it."""
    folder = tmp_path_factory.mktemp("begun")
    shutil.copytree(demo, folder / "model")
    given = {"model": str(folder / "model"), "output": folder / "out", "method": "gptq", "calib": calib}
    run = RunConfig(**given, num_samples=SAMPLES, device="cpu")
    stop_in_block_2(run)
    return run


class Said(Silent):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def fingerprint(run: RunConfig) -> dict[str, Any]:
    journal = unseal((stage(run) / "journal.json").read_bytes())
    found: dict[str, Any] = journal["fingerprint"]
    return found


def stage(run: RunConfig) -> Path:
    return run.output.with_name(f".{run.output.name}.hyocr-partial")


def keys(found: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in found.items():
        if isinstance(value, dict):
            yield from keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


def refusal(run: RunConfig) -> str:
    with pytest.raises(OutputError) as caught:
        quantize(run)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_every_key_is_changed_by_a_test(begun: RunConfig) -> None:
    elsewhere = {"ranks"}  # tests/run/test_several_processes.py goes on with fewer
    assert {key for key in keys(fingerprint(begun)) if not key.startswith("model.")} == set(CHANGED) | elsewhere


@pytest.mark.parametrize("key", CHANGED)
def test_a_change_refuses_to_resume_and_is_named(key: str, begun: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    world = CHANGED[key]
    world.patch(monkeypatch)
    said = refusal(RunConfig(**{**begun.model_dump(), **world.settings}))
    assert said.startswith("cannot resume, this is not the run that was begun: ")
    assert f" {key}: " in said


def test_other_options_of_single_layers_refuse_to_resume(begun: RunConfig) -> None:
    said = refusal(RunConfig(**{**begun.model_dump(), "overrides": {"*": {"damp_percent": 0.02}}}))
    assert ' overrides.*: absent -> {"damp_percent": 0.02}' in said


def test_a_change_of_any_file_of_the_model_refuses_to_resume(begun: RunConfig) -> None:
    """Weights, and all that inputs and answers are made with."""
    files = sorted(path.name for path in Path(begun.model).iterdir())
    assert {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"} <= set(files)
    assert sorted(key.removeprefix("model.") for key in keys(fingerprint(begun)) if key.startswith("model.")) == files
    for name in files:
        path = Path(begun.model) / name
        before = path.read_bytes()
        path.write_bytes(changed(name, before))
        try:
            assert f" model.{name}: " in refusal(begun)
        finally:
            path.write_bytes(before)


def changed(name: str, content: bytes) -> bytes:
    """The file as somebody would have edited it, in a way that a run does not refuse for another reason."""
    if name.endswith(".safetensors"):
        return content[:-2] + bytes([content[-2] ^ 1]) + content[-1:]
    return content + b"\n"


def test_starting_again_is_refused_before_anything_is_lost(begun: RunConfig) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in stage(begun).rglob("*") if path.name != "lock")
    with pytest.raises(ConfigError, match="group_size"):
        quantize(begun.model_copy(update={"options": {"group_size": 7}}), fresh=True)
    with pytest.raises(ConfigError, match="give one of them"):
        quantize(begun, resume=True, fresh=True)
    assert sorted((path, path.stat().st_mtime_ns) for path in stage(begun).rglob("*") if path.name != "lock") == before


def test_the_same_run_goes_on_by_itself_and_another_starts_again_when_asked_to(begun: RunConfig) -> None:
    """Last in this file: both end the run that was begun."""
    copy = begun.model_copy(update={"output": begun.output.with_name("copy")})
    shutil.copytree(stage(begun), stage(copy))
    said = Said()
    assert quantize(begun, progress=said).resumed_after_block == 1
    assert "going on with an interrupted run, which has done 2 of 4 blocks" in said.lines
    other = copy.model_copy(update={"seed": 1})
    assert " calibration.seed: 0 -> 1; " in refusal(other)
    assert quantize(other, fresh=True).resumed_after_block is None
    assert not stage(other).exists()
