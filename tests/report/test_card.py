"""The model card: what it says, what it carries over, and that its commands work."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from hyocr_core.config import RunConfig
from hyocr_core.pipeline import quantize
from hyocr_core.report.card import model_card

LICENCE = {"license": "other", "license_name": "tencent-hunyuan", "license_link": "LICENSE"}


@pytest.fixture
def quantized(demo: Path, calib: str, tmp_path: Path) -> Callable[..., Path]:
    def make(method: str, model: str = str(demo), **options: Any) -> Path:
        output = tmp_path / "HunyuanOCR small"
        run = RunConfig(
            model=model, output=output, method=method, options=options, calib=calib, num_samples=3, device="cpu"
        )
        quantize(run)
        return output

    return make


def python_block(card: str) -> str:
    found = re.search(r"```python\n(.*?)\n```", card, re.DOTALL)
    assert found
    return found[1]


def test_the_card_names_the_base_model_on_the_hub(
    quantized: Callable[..., Path], hub_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub_cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    folder = quantized("gptq", "tencent/HunyuanOCR", group_size=64)
    card = ModelCard.load(folder / "README.md")
    assert (card.data.base_model, card.data.base_model_relation) == ("tencent/HunyuanOCR", "quantized")
    assert {"hyocr", "gptq"} <= set(card.data.tags or ())
    assert "revision `0123456789abcdef0123456789abcdef01234567`" in card.text
    assert '"group_size": 64' in card.text
    assert "| calibration | 3 pages, " in card.text
    assert "hyocr eval 'HunyuanOCR small' --data your-pages/ --baseline tencent/HunyuanOCR" in card.text


def test_licence_and_language_are_carried_over_and_nothing_else(
    quantized: Callable[..., Path], demo: Path, tmp_path: Path
) -> None:
    model = tmp_path / "licensed"
    shutil.copytree(demo, model)
    entries = "".join(f"{key}: {value}\n" for key, value in LICENCE.items())
    (model / "README.md").write_text(
        f"---\n{entries}language: [zh, en]\nmetrics: [cer]\n---\n# Base\n", encoding="utf-8"
    )
    text = (quantized("rtn", str(model)) / "README.md").read_text(encoding="utf-8")
    metadata = ModelCard(text).data.to_dict()  # type: ignore[no-untyped-call]
    assert {key: metadata[key] for key in LICENCE} == LICENCE
    assert metadata["language"] == ["zh", "en"]
    assert "metrics" not in metadata
    # A folder is no model of the hub, and no path of this machine belongs into a card.
    assert "base_model" not in metadata
    assert str(tmp_path) not in text
    assert "# Base" not in text


@pytest.mark.parametrize("options", [{"sym": True}, {"sym": False}], ids=["symmetric", "zero points"])
def test_the_transformers_snippet_runs(options: dict[str, bool], quantized: Callable[..., Path]) -> None:
    folder = quantized("rtn", format="compressed-tensors", group_size=64, **options)
    snippet = python_block((folder / "README.md").read_text(encoding="utf-8"))
    assert ("dequantize=True" in snippet) == (not options["sym"])
    code = f"{snippet}\nassert model.num_parameters() > 10**6"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_what_transformers_does_not_load_has_no_snippet(quantized: Callable[..., Path]) -> None:
    text = (quantized("fp8", format="fp8") / "README.md").read_text(encoding="utf-8")
    assert "from_pretrained" not in text
    assert re.search(r"\| Transformers \| no \| its fp8", text)


def test_a_format_of_a_plugin_is_unsure(quantized: Callable[..., Path], tmp_path: Path) -> None:
    from hyocr_core.checkpoint.report import read_report

    report = read_report(quantized("rtn"))
    text = model_card(report, "x", {"quant_method": "codebook"}, tmp_path / "none", from_hub=False)
    assert "| vLLM CPU | unsure | hyocr does not know this kind of codebook checkpoint |" in text
    assert "from_pretrained" not in text
