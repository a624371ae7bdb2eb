"""The report of a checkpoint that was damaged after it was made points to the damage."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file, save_file

from hyocr_core.cli.main import main

pytestmark = pytest.mark.needs_methods


@pytest.mark.parametrize("layer", ["model.layers.1.mlp.up_proj", "model.layers.2.mlp.gate_proj"])
def test_the_block_of_a_damaged_layer_comes_first(demo: Path, heldout: str, tmp_path: Path, layer: str) -> None:
    folder = tmp_path / "rtn"
    made = CliRunner().invoke(main, ["quant", "--method", "rtn", "--model", str(demo), "--output", str(folder)])
    assert made.exit_code == 0, made.output
    tensors = load_file(folder / "model.safetensors")
    tensors[f"{layer}.scales"] *= 2
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    data = ("--data", heldout, "--num-samples", "16", "--baseline", str(demo))
    read = CliRunner().invoke(main, ["eval", str(folder), *data, "--record"])
    assert read.exit_code == 0, read.output
    html = (folder / "report" / "index.html").read_text(encoding="utf-8")
    ranked = html[html.index('<ol class="ranked">') :]
    first = re.search(r"<li><code>([^<]*)</code>.*?most of all ([a-z_]+),", ranked, re.DOTALL)
    assert first is not None
    block, kind = layer.rsplit(".", 2)[0], layer.rsplit(".", 1)[1]
    assert first.groups() == (block, kind)
    assert f'<p class="headline">block {block[-1]} ' in html
