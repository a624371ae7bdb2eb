"""Plugins from outside, as pip installs them: each passes its own tests, the conformance kit, and is small."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from hyocr_core.models.load import load_whole, open_weights
from hyocr_core.pages.samples import build_sample
from hyocr_core.pages.sources import open_source, select
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

DISTRIBUTIONS = Path(__file__).parents[1] / "distributions"


@pytest.mark.parametrize(
    ("name", "version", "outcome"),
    [
        # What is skipped: tests of what the method does not do, and a checkpoint that reads, which is not given.
        ("toy", "1.2.3", "14 passed, 3 skipped"),
        ("gptaq", "1.0.0", "15 passed, 2 skipped"),
        ("smoothquant", "1.0.0", "16 passed, 1 skipped"),
    ],
)
def test_the_installed_distribution_passes_its_own_tests(name: str, version: str, outcome: str, tmp_path: Path) -> None:
    site, source = tmp_path / "site", DISTRIBUTIONS / name
    pip = ["-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps", "--no-index"]
    command = [sys.executable, *pip, "--no-build-isolation", "--target", str(site), str(source)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
    package = f"hyocr_plugin_{name}"
    assert {path.name for path in site.iterdir()} == {package, f"{package}-{version}.dist-info"}
    assert (site / package / "py.typed").is_file()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "--rootdir",
            str(source),
            str(source / "tests"),
        ],
        env=os.environ | {"PYTHONPATH": str(site)},
        cwd=tmp_path,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    assert outcome in done.stdout


@pytest.mark.parametrize("name", ["gptaq", "smoothquant"])
def test_a_whole_method_takes_less_than_120_lines(name: str) -> None:
    source = DISTRIBUTIONS / name / "src"
    assert sum(len(path.read_text(encoding="utf-8").splitlines()) for path in source.rglob("*.py")) < 120


def test_transformers_loads_the_int8_weights_and_reads_the_same(
    demo: Path, calib: str, processor: Any, plugins: PluginFolder, tmp_path: Path
) -> None:
    plugins.distribution("smoothquant")
    given = {"model": str(demo), "output": tmp_path / "out", "method": "smoothquant", "device": "cpu"}
    quantize(RunConfig.model_validate({**given, "calib": calib, "num_samples": 8}))
    weights, device = open_weights(tmp_path / "out"), torch.device("cpu")
    native, emulated = (load_whole(weights, device, native=each) for each in (True, False))
    for record in select(open_source(calib), 3, 1):
        sample = build_sample(record, processor, with_answer=True).inputs
        with torch.no_grad():
            answers = [model.skeleton(**sample).logits.argmax(-1)[:, -8:] for model in (native, emulated)]
        assert torch.equal(*answers)
    # Compressed until the first forward pass of the whole model.
    for name in weights.shapes:  # type: ignore[union-attr]
        found = native.skeleton.get_submodule(native.memory_names[name]).get_parameter("weight")
        assert torch.equal(found, emulated.modules[name].weight), name
