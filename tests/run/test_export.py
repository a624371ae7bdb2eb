"""Files that a method writes beside the weights: published with the checkpoint, and from its own folder only."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hyocr_core.checkpoint.quant_report import read_report
from hyocr_core.errors import HookError, MethodError, RunError
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.testing.tiny import write_checkpoint
from hyocr_core.verification.verify import verify

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

PLUGIN = """
import os
from pathlib import Path
from hyocr_core import MethodSpec, hookimpl
from hyocr_plugin_toy.plugin import ToyConfig, check_layers, checkpoint_config, pack, quantize_layer, unpack

@hookimpl
def method_spec():
    return MethodSpec("exports", ToyConfig, "e", api_version=1, needs_calibration=False)

@hookimpl
def export(checkpoint, folder, config):
    from safetensors.torch import load_file, save_file
    {body}
"""


@pytest.fixture
def run(tmp_path: Path) -> RunConfig:
    write_checkpoint(tmp_path / "model")
    return RunConfig(model=str(tmp_path / "model"), output=tmp_path / "out", method="exports", device="cpu")


def install(plugins: PluginFolder, body: str) -> None:
    plugins.toy()
    plugins.module("exports", PLUGIN.format(body=body))


def test_what_it_writes_is_published_and_in_the_report(plugins: PluginFolder, run: RunConfig) -> None:
    body = """tensors = load_file(checkpoint / "model.safetensors")
    (folder / "sub").mkdir()
    (folder / "sub" / "names.txt").write_text(",".join(sorted(tensors)))
    (folder / "model.bin").write_bytes(b"1234")"""
    install(plugins, body)
    quantize(run)
    assert (run.output / "model.bin").read_bytes() == b"1234"
    assert "model.layers.0.self_attn.q_proj.weight_packed" in (run.output / "sub" / "names.txt").read_text()
    digests = read_report(run.output).output_sha256
    assert digests["model.bin"] == hashlib.sha256(b"1234").hexdigest()
    files = {str(path.relative_to(run.output)) for path in run.output.rglob("*") if path.is_file()}
    assert files - set(digests) == {"README.md", "hyocr_report.json", "report/run.json"}
    assert verify(run.output).faults == ()


@pytest.mark.parametrize(
    ("body", "kind", "said"),
    [
        ('Path({elsewhere!r}).write_text("x")', MethodError, "outside of the folder it was given"),
        ('(checkpoint / "config.json").write_text("x")', MethodError, "outside of the folder it was given"),
        ('(folder / "x").write_text("x"); (folder / "x").rename({elsewhere!r})', MethodError, "outside of the folder"),
        ('os.symlink({elsewhere!r}, folder / "link")', MethodError, "neither a file nor a folder"),
        ("save_file(load_file(checkpoint / 'model.safetensors'), checkpoint / 'more.safetensors')", MethodError,
         "outside of the folder it was given"),
        ('try: Path({elsewhere!r}).mkdir()\n    except Exception: pass', MethodError, "outside of the folder"),
        ('(folder / "config.json").write_text("x")', RunError, "config.json would take the place of a file"),
        ('(folder / "README.md").write_text("x")', RunError, "README.md would take the place of a file"),
        ('(folder / "report").mkdir(); (folder / "report" / "index.html").write_text("x")', RunError,
         "report/index.html would take the place of a file"),
        ("raise ValueError('no')", HookError, "hook export: ValueError: no"),
        ("return 1", HookError, "must return nothing"),
    ],
)  # fmt: skip
def test_elsewhere_is_refused_and_nothing_is_published(
    body: str, kind: type[Exception], said: str, plugins: PluginFolder, run: RunConfig
) -> None:
    elsewhere = run.output.with_name("elsewhere")
    install(plugins, body.format(elsewhere=str(elsewhere)))
    with pytest.raises(kind) as caught:
        quantize(run)
    assert said in str(caught.value)
    assert not elsewhere.exists()
    assert not run.output.exists()
