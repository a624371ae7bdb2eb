"""The benchmark's checkpoint has the published shape and loads like a real one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from transformers import HunYuanVLForConditionalGeneration

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.pages.processor import load_processor

SCRIPT = Path(__file__).parents[2] / "benchmarks/make_checkpoint.py"
BLOCK = {  # facts of the published model: (out_features, in_features) of a decoder block's linears
    "self_attn.q_proj": (2048, 1024),
    "self_attn.k_proj": (1024, 1024),
    "self_attn.v_proj": (1024, 1024),
    "self_attn.o_proj": (1024, 2048),
    "mlp.gate_proj": (3584, 1024),
    "mlp.up_proj": (3584, 1024),
    "mlp.down_proj": (1024, 3584),
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One decoder block and one vision block, in several shards."""
    output = tmp_path_factory.mktemp("benchmark") / "checkpoint"
    options = ["--layers", "1", "--vision-layers", "1", "--shard-mb", "40"]
    subprocess.run([sys.executable, str(SCRIPT), str(output), *options], check=True)
    return output


def test_it_has_the_published_shapes_and_on_disk_names(checkpoint: Path) -> None:
    reader = CheckpointReader(checkpoint)
    shapes = {name: tuple(info.shape) for name, info in reader.tensors.items()}
    assert shapes["model.embed_tokens.weight"] == (120818, 1024)
    assert shapes["vit.layers.0.mlp.dense_h_to_4h.weight"] == (4304, 1152)
    assert "lm_head.weight" not in shapes
    assert {name: shapes[f"model.layers.0.{name}.weight"] for name in BLOCK} == BLOCK
    assert len(list(checkpoint.glob("model-*.safetensors"))) > 1
    assert HunYuanVL(reader, torch.device("cpu")).config.text_config.num_hidden_layers == 1


def test_transformers_finds_every_tensor(checkpoint: Path) -> None:
    loaded: Any = HunYuanVLForConditionalGeneration.from_pretrained(
        checkpoint, dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(loaded[1].values())


def test_a_page_keeps_its_size_and_its_tokens_are_the_models(checkpoint: Path) -> None:
    reader = CheckpointReader(checkpoint)
    content = [{"type": "image", "image": Image.new("RGB", (1024, 768), "white")}, {"type": "text", "text": "Read."}]
    inputs = load_processor(checkpoint).apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    image_tokens = inputs["input_ids"] == reader.config["image_token_id"]
    assert int(image_tokens.sum()) == (768 // 32) * (1024 // 32 + 1) + 2
