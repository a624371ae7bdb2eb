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
from hyocr_core.models.tied import tied_copies
from hyocr_core.pages.processor import load_processor

SCRIPT = Path(__file__).parents[2] / "benchmarks/make_checkpoint.py"
IMAGE_IDS = ("im_start_id", "im_end_id", "image_token_id", "im_newline_id")
ROPE = {
    "alpha": 1000.0,
    "beta_fast": 32,
    "beta_slow": 1,
    "factor": 1.0,
    "mscale": 1.0,
    "mscale_all_dim": 1.0,
    "type": "xdrope",
    "xdrope_section": [16, 16, 16, 16],
}
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


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both generations, one block of each tower."""
    output = tmp_path_factory.mktemp("benchmark") / "published"
    options = ["--generation", "1.5", "--layers", "1", "--vision-layers", "1"]
    subprocess.run([sys.executable, str(SCRIPT), str(output), *options], check=True)
    return output


def test_v1_5_is_one_file_with_the_head_and_v1_0_four_without(published: Path) -> None:
    new, old = CheckpointReader(published), CheckpointReader(published / "v1.0")
    assert {info.shard for info in new.tensors.values()} == {"model.safetensors"}
    assert {info.shard for info in old.tensors.values()} == {f"model-0000{n}-of-00004.safetensors" for n in range(1, 5)}
    assert new.tensors.keys() - old.tensors.keys() == {"lm_head.weight"}
    assert tied_copies(HunYuanVL(new, torch.device("cpu"))) == {"lm_head.weight": "model.embed_tokens.weight"}


def test_the_configs_are_the_published_ones(published: Path) -> None:
    new, old = CheckpointReader(published).config, CheckpointReader(published / "v1.0").config
    assert (new["text_config"]["pad_token_id"], new["text_config"]["max_position_embeddings"]) == (120002, 131072)
    assert (old["pad_token_id"], old["pad_id"], old["max_position_embeddings"]) == (-1, 120002, 32768)
    assert "text_config" not in old
    for text in (new["text_config"], old):
        assert text["rope_scaling"] == ROPE
        assert (text["rope_theta"], text["use_qk_norm"], text["eod_token_id"]) == (10000.0, True, 120020)
    for config in (new, old):
        assert [config[key] for key in IMAGE_IDS] == [120118, 120119, 120120, 120121]


def test_the_special_tokens_have_their_published_ids(published: Path) -> None:
    content = [{"type": "image", "image": Image.new("RGB", (512, 512), "white")}, {"type": "text", "text": "Q"}]
    messages = [{"role": "system", "content": ""}, {"role": "user", "content": content}]
    for folder in (published, published / "v1.0"):
        processor = load_processor(folder)
        inputs = processor.apply_chat_template(messages, tokenize=True, return_dict=True, return_tensors="pt")
        ids = inputs["input_ids"][0].tolist()
        image = 16 * (16 + 1) + 2
        assert ids[:3] == [120000, 120021, 120118]
        assert ids[3 : 3 + image] == [120120] * image
        assert ids[3 + image :] == [120119, *processor.tokenizer("Q").input_ids, 120006]


def test_a_page_keeps_its_size_and_its_tokens_are_the_models(checkpoint: Path) -> None:
    reader = CheckpointReader(checkpoint)
    content = [{"type": "image", "image": Image.new("RGB", (1024, 768), "white")}, {"type": "text", "text": "Read."}]
    inputs = load_processor(checkpoint).apply_chat_template(
        [{"role": "user", "content": content}], tokenize=True, return_dict=True, return_tensors="pt"
    )
    image_tokens = inputs["input_ids"] == reader.config["image_token_id"]
    assert int(image_tokens.sum()) == (768 // 32) * (1024 // 32 + 1) + 2
