"""What `hyocr push` refuses to upload without `--force`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from hyocr_core.errors import BadInputError
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.verification.release import refuse_unfit

pytestmark = pytest.mark.needs_methods


@pytest.fixture(scope="module")
def quantized(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("release") / "out"
    quantize(RunConfig(model=str(demo), output=output, method="rtn", device="cpu"))
    return output


def judged(folder: Path, accepted: bool) -> None:
    report = json.loads((folder / "hyocr_report.json").read_text())
    figure = {"metric": "cer", "bound": 0.5, "value": 0.1 if accepted else 1.2, "passed": accepted}
    report["gate"] = {"accepted": accepted, "figures": [figure]}
    (folder / "hyocr_report.json").write_text(json.dumps(report))


def test_what_is_as_its_report_says_is_fit(quantized: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(quantized, tmp_path / "copy")
    refuse_unfit(folder)
    judged(folder, accepted=True)
    (folder / "README.md").write_text("A card of my own.")
    refuse_unfit(folder)


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "hyocr_report.json").unlink(), "has no hyocr_report.json, which says what was done"),
        (lambda folder: (folder / "hyocr_report.json").write_text("{}"), r"hyocr_report.json: "),
        (lambda folder: judged(folder, accepted=False), r"has failed its gate \(cer\)"),
        (lambda folder: (folder / "tokenizer.json").unlink(), "not sound: tokenizer.json: is missing, hyocr wrote it"),
        (lambda folder: (folder / "model.gguf").write_bytes(b"x"), "not sound: model.gguf: is none of the files"),
    ],
)
def test_anything_else_is_not(spoil: Callable[[Path], object], said: str, quantized: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(quantized, tmp_path / "copy")
    spoil(folder)
    with pytest.raises(BadInputError, match=said):
        refuse_unfit(folder)
