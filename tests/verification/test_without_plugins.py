"""What any method of this repository wrote is read, verified, rounded in and reported without it."""

from __future__ import annotations

import json
import shutil
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any

import pytest

from hyocr_core.errors import MethodError
from hyocr_core.evaluation.recorded.summary import summarize
from hyocr_core.evaluation.scores.result import EvalResult
from hyocr_core.pages.sources import open_source
from hyocr_core.plugin.registry import load_method
from hyocr_core.report.card import record_numbers
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.verification.verify import verify
from tests.evaluating import evaluate

pytestmark = pytest.mark.needs_methods

OLDER = "hyocr_report.json is of an older hyocr, and has digests of the weights alone"
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "gptq": ("gptq", {}),
    "gptq-8-packed": ("gptq", {"bits": 8, "format": "compressed-tensors"}),
    "awq": ("awq", {}),
    "fp8": ("fp8", {"kv_cache": True}),
    "fp8-fp8": ("fp8", {"format": "fp8"}),
}


@pytest.fixture(scope="module", params=METHODS)
def written(
    request: pytest.FixtureRequest, demo: Path, calib: str, heldout: str, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, EvalResult]:
    """A checkpoint, and how it reads while its method is installed."""
    method, options = METHODS[request.param]
    folder = tmp_path_factory.mktemp(request.param) / "out"
    run = {"model": str(demo), "output": folder, "method": method, "options": options, "calib": calib}
    quantize(RunConfig(**run, num_samples=4, device="cpu"))
    return folder, read(folder, demo, heldout)


@pytest.fixture
def no_plugins(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the core is installed."""

    def core() -> list[Distribution]:
        return [each for each in distributions() if not (each.metadata["Name"] or "").startswith("hyocr-plugin-")]

    monkeypatch.setattr("hyocr_core.plugin.entry_points.distributions", core)
    with pytest.raises(MethodError):
        load_method("gptq")


def read(folder: Path, demo: Path, heldout: str) -> EvalResult:
    return evaluate(folder, open_source(heldout)[:6], baseline=demo, rounded=True)


def old(folder: Path, target: Path) -> Path:
    """As hyocr wrote it before its report said what is in other files than the weights."""
    shutil.copytree(folder, target)
    report = json.loads((target / "hyocr_report.json").read_text())
    del report["quantization_config"]
    report["output_sha256"] = {name: report["output_sha256"][name] for name in ("model.safetensors",)}
    (target / "hyocr_report.json").write_text(json.dumps(report))
    return target


def test_it_is_verified(written: tuple[Path, EvalResult], demo: Path, tmp_path: Path, no_plugins: None) -> None:
    folder, _ = written
    result = verify(folder, original=str(demo))
    assert (result.faults, result.notes, len(result.layers)) == ((), (), 28)
    changed = shutil.copytree(folder, tmp_path / "changed")
    config = json.loads((changed / "config.json").read_text())
    config["quantization_config"]["made_up"] = 1
    (changed / "config.json").write_text(json.dumps(config))
    assert [fault.problem for fault in verify(changed).faults] == [
        "has other bytes than hyocr wrote (SHA-256 differs)",
        "quantization_config: made_up is 1, hyocr wrote None",
    ]


def test_an_older_one_is_verified_too(
    written: tuple[Path, EvalResult], demo: Path, tmp_path: Path, no_plugins: None
) -> None:
    result = verify(old(written[0], tmp_path / "old"), original=str(demo))
    assert result.faults == ()
    assert result.notes[0] == OLDER
    assert result.notes[1].startswith("config.json was not compared with what ")


def test_with_its_method_an_older_one_is_compared(written: tuple[Path, EvalResult], tmp_path: Path) -> None:
    folder = old(written[0], tmp_path / "old")
    result = verify(folder)
    assert (result.faults, result.notes) == ((), (OLDER,))
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"]["made_up"] = 1
    (folder / "config.json").write_text(json.dumps(config))
    (fault,) = verify(folder).faults
    assert "made_up is 1" in fault.problem


def test_it_reads_the_same(
    written: tuple[Path, EvalResult], demo: Path, heldout: str, tmp_path: Path, no_plugins: None
) -> None:
    folder, before = written
    after = read(folder, demo, heldout)
    assert after.pages == before.pages
    assert after.comparison == before.comparison
    assert after.layers == before.layers
    copy = shutil.copytree(folder, tmp_path / "copy")
    record_numbers(copy, summarize(after, "lines"), None)
    assert "6 pages of lines" in (copy / "README.md").read_text()
