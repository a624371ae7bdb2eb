from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import open_weights
from hyocr_core.models.parts import part_bytes
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig

pytestmark = pytest.mark.needs_methods


def bytes_by_name(folder: Path) -> dict[str, int]:
    """By how the published checkpoint's names begin."""
    sizes = dict.fromkeys(("decoder", "vision", "embeddings", "rest"), 0)
    prefixes = {"model.layers.": "decoder", "vit.": "vision", "model.embed_tokens.": "embeddings"}
    with safe_open(folder / "model.safetensors", framework="pt") as file:
        for name in file.keys():  # noqa: SIM118
            part = next((part for prefix, part in prefixes.items() if name.startswith(prefix)), "rest")
            sizes[part] += file.get_tensor(name).nbytes
    return sizes


def sizes_of(folder: Path) -> dict[str, int]:
    model = HunYuanVL(open_weights(folder), torch.device("cpu"))
    return part_bytes(model, CheckpointReader(folder).tensors)


def test_parts_of_a_full_precision_checkpoint(demo: Path) -> None:
    assert sizes_of(demo) == bytes_by_name(demo)
    assert min(sizes_of(demo).values()) > 0


@pytest.mark.parametrize(
    ("method", "options"),
    [("rtn", {}), ("fp8", {"kv_cache": True}), ("fp8", {"activation_scheme": "dynamic", "quant_vit": True})],
)
def test_packed_tensors_count_where_their_weights_belong(
    demo: Path, calib: str, tmp_path: Path, method: str, options: dict[str, object]
) -> None:
    folder = tmp_path / "out"
    quantize(RunConfig(model=str(demo), output=folder, method=method, options=options, calib=calib, num_samples=2))
    assert sizes_of(folder) == bytes_by_name(folder)
    assert sizes_of(folder)["decoder"] < sizes_of(demo)["decoder"]
    assert sizes_of(folder)["embeddings"] == sizes_of(demo)["embeddings"]
