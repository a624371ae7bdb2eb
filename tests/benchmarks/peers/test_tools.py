"""llm-compressor and GPTQModel quantize the demo in every setting of the benchmark; needs `make peers`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from hyocr_core import verify
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.load import open_weights

ROOT = Path(__file__).parents[3]
LINES = 4
SETTINGS = {
    "llmcompressor": {"gptq": "compressed-tensors", "awq": "compressed-tensors", "fp8": "compressed-tensors"},
    "gptqmodel": {"gptq": "gptq", "gptq-best": "gptq", "gptq-best-served": "gptq", "awq": "awq"},
}
"""Tool -> setting -> quant_method."""
FUSED = "differs within a group that runtimes fuse into one weight"
"""llm-compressor gives q, k and v scales of their own, of which vLLM takes the largest and rounds again."""


@pytest.fixture
def lines(calib: str, tmp_path: Path) -> Path:
    """A few calibration lines, with their images."""
    rows = Path(calib).read_text(encoding="utf-8").splitlines()[:LINES]
    (tmp_path / "images").mkdir()
    for path in (json.loads(row)["img_path"] for row in rows):
        (tmp_path / path).write_bytes((Path(calib).parent / path).read_bytes())
    file = tmp_path / "lines.jsonl"
    file.write_text("\n".join(rows), encoding="utf-8")
    return file


@pytest.mark.parametrize(
    ("tool", "setting"), [(tool, each) for tool, settings in SETTINGS.items() for each in settings]
)
def test_a_setting(tool: str, setting: str, demo: Path, lines: Path, tmp_path: Path) -> None:
    python = ROOT / f".venv-peer-{tool}/bin/python"
    if not python.is_file():
        pytest.skip(f"no .venv-peer-{tool}: `make peers` makes it")
    output = tmp_path / "output"
    paths: list[str | Path] = ["--model", demo, "--calib", lines, "--output", output]
    command = [python, ROOT / f"benchmarks/peers/with_{tool}.py", *paths, "--setting", setting]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads(done.stdout.splitlines()[-1])
    assert (record["setting"], record["lines"], set(record["versions"])) == (
        setting,
        LINES,
        {tool, "torch", "transformers"},
    )
    assert json.loads((output / "peer.json").read_text()) == record
    config = json.loads((output / "config.json").read_text())["quantization_config"]
    assert config["quant_method"] == SETTINGS[tool][setting]
    stored = open_weights(output)
    assert isinstance(stored, DequantizedCheckpoint)
    blocks = json.loads((demo / "config.json").read_text())["text_config"]["num_hidden_layers"]
    assert len(stored.shapes) == 7 * blocks
    faults = verify(output, original=str(demo)).faults
    assert [fault for fault in faults if setting != "fp8" or FUSED not in str(fault)] == []
    assert {path.name for path in tmp_path.iterdir()} == {"images", "lines.jsonl", "output"}
