"""Make a checkpoint of the published 1B shape with synthetic weights, in the on-disk layout, shard by shard.

The weights read nothing, but they cost what real ones cost: same shapes, same names, bf16, and a few channels of the
decoder's residual stream far above the rest, as trained models have them. Tokenizer, processor and chat template are
those of the demo checkpoint, whose special ids the config keeps; the vocabulary has the published size.

With --generation the folder is laid out as that generation is published: its config and processor, the special tokens
at their published ids, its weight files (v1.5's only one is held in memory), and beside v1.5 what lies there, the older
model included.
"""

from __future__ import annotations

import json
import math
import shutil
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from hyocr_core.testing import layout
from hyocr_core.testing.generations import (
    EMBEDDING,
    GENERATIONS,
    HEAD,
    LEAST_PIXELS,
    LENGTHS,
    PATCH_PIXELS,
    SHARDS,
    Generation,
    dress,
    shard_names,
    write_beside,
    write_json,
)

if TYPE_CHECKING:
    from torch import Tensor

DEMO = Path(__file__).parents[1] / "examples/demo-ocr/checkpoint"
COPIED = ("chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json")
PIXELS = {"shortest_edge": 512 * 512, "longest_edge": 2048 * 2048}
OUTLIER_CHANNELS = 8
OUTLIER_GAIN = 24.0

TEXT_SHAPE: dict[str, Any] = {
    "vocab_size": 120818,
    "hidden_size": 1024,
    "intermediate_size": 3584,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "max_position_embeddings": 32768,
    "rope_parameters": {
        "rope_type": "dynamic",
        "rope_theta": 10000.0,
        "alpha": 1000.0,
        "factor": 1.0,
        "mrope_section": [16, 16, 16, 16],
    },
}
VISION_SHAPE: dict[str, Any] = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "num_key_value_heads": 16,
    "out_hidden_size": 1024,
    "text_hidden_size": 1024,
    "img_max_token_num": 4096,
    "max_image_size": 2048,
    "min_image_size": 512,
    "max_vit_seq_len": 16384,
}
DISK_NAMES = {
    "model.language_model.": "model.",
    "model.vision_tower.": "vit.",
    ".layer_norm1.": ".input_layernorm.",
    ".layer_norm2.": ".post_attention_layernorm.",
    ".fc1.": ".dense_h_to_4h.",
    ".fc2.": ".dense_4h_to_h.",
    ".patch_merger.proj_conv.": ".perceive.proj.0.",
    ".patch_merger.proj_out.": ".perceive.proj.2.",
    ".patch_merger.": ".perceive.",
}


def checkpoint_config(layers: int, vision_layers: int) -> dict[str, Any]:
    """The demo checkpoint's config in the published shape."""
    config: dict[str, Any] = json.loads((DEMO / "config.json").read_text(encoding="utf-8"))
    config["text_config"] |= TEXT_SHAPE | {"num_hidden_layers": layers}
    config["vision_config"] |= VISION_SHAPE | {"num_hidden_layers": vision_layers}
    return config


def dressable_config(generation: Generation, layers: int, vision_layers: int) -> dict[str, Any]:
    """`checkpoint_config` with the published ids and limits of a generation; `dress` gives it the published form."""
    config, ids = checkpoint_config(layers, vision_layers), layout.PUBLISHED_IDS
    ends = {
        "bos_token_id": ids[layout.BOS],
        "eos_token_id": ids[layout.ASSISTANT],
        "pad_token_id": ids[layout.PAD],
    }
    config |= ends | {
        "image_token_id": ids[layout.IMAGE],
        "im_start_id": ids[layout.IMAGE_START],
        "im_end_id": ids[layout.IMAGE_END],
        "im_newline_id": ids[layout.IMAGE_NEWLINE],
    }
    positions, pixels = LENGTHS[generation]
    config["text_config"] |= ends | {"eod_token_id": ids[layout.EOD], "max_position_embeddings": positions}
    patches = pixels // PATCH_PIXELS
    config["vision_config"] |= {"max_vit_seq_len": patches, "img_max_token_num": patches // 4}
    return config


def tensor_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    """On-disk name -> shape of every tensor but the tied head, in the order of the model."""
    import torch
    from transformers import HunYuanVLConfig, HunYuanVLForConditionalGeneration

    with torch.device("meta"):
        model = HunYuanVLForConditionalGeneration(HunYuanVLConfig.from_dict(config))
    return {disk_name(name): tuple(parameter.shape) for name, parameter in model.named_parameters()}


def disk_name(name: str) -> str:
    """The published name of a tensor that Transformers calls `name`."""
    for memory, disk in DISK_NAMES.items():
        name = name.replace(memory, disk)
    return name


def make_tensor(name: str, shape: tuple[int, ...], depth: int, seed: int) -> Tensor:
    """The weights of one tensor, bf16: the same for the same name, shape and seed, whatever was made before."""
    import torch

    random = torch.Generator().manual_seed(seed ^ zlib.crc32(name.encode()))
    if len(shape) == 1:
        return _make_vector(name, shape[0], random).to(torch.bfloat16)
    fan_in = math.prod(shape[1:])
    spread = 0.02 if "embed" in name else fan_in**-0.5
    if name.endswith(("o_proj.weight", "down_proj.weight", "dense_4h_to_h.weight")):
        spread /= math.sqrt(2 * depth)  # the residual stream keeps its scale however deep the model is
    return torch.randn(shape, generator=random).mul_(spread).to(torch.bfloat16)


def _make_vector(name: str, size: int, random: Any) -> Tensor:
    """A bias, a special token or the weight of a norm; a decoder norm lets the outlier channels through, amplified."""
    import torch

    noise = 0.05 * torch.randn(size, generator=random)
    if name.endswith(".bias") or "image_" in name:
        return noise
    weight = 1.0 + noise
    if name.startswith("model.layers.") and name.endswith(
        ("input_layernorm.weight", "post_attention_layernorm.weight")
    ):
        weight[torch.arange(OUTLIER_CHANNELS) * (size // OUTLIER_CHANNELS)] *= OUTLIER_GAIN
    return weight


def split_into_shards(shapes: dict[str, tuple[int, ...]], limit: int) -> list[list[str]]:
    """Names in order, as many to a shard as fit into `limit` bytes of bf16; a larger tensor gets its own."""
    shards: list[list[str]] = [[]]
    room = limit
    for name, shape in shapes.items():
        size = bytes_of(shape)
        if shards[-1] and size > room:
            shards.append([])
            room = limit
        shards[-1].append(name)
        room -= size
    return shards


def write_shards(
    output: Path, shapes: dict[str, tuple[int, ...]], shards: list[list[str]], depth: int, seed: int
) -> None:
    """Write the shards and their index, one shard in memory at a time."""
    weight_map: dict[str, str] = {}
    for number, names in enumerate(shards, 1):
        file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        write_file(output / file, {name: shapes[name] for name in names}, depth, seed)
        weight_map |= dict.fromkeys(names, file)
    total = sum(bytes_of(shape) for shape in shapes.values())
    write_json(output / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": weight_map})


def write_file(path: Path, shapes: dict[str, tuple[int, ...]], depth: int, seed: int) -> None:
    """Write one file of weights; a head has those of the embedding."""
    from safetensors.torch import save_file

    sources = {name: EMBEDDING if name == HEAD else name for name in shapes}
    tensors = {name: make_tensor(sources[name], shape, depth, seed) for name, shape in shapes.items()}
    save_file(tensors, path, metadata={"format": "pt"})
    click.echo(f"{path.name}: {len(shapes)} tensors")


def bytes_of(shape: tuple[int, ...]) -> int:
    """Of a bf16 tensor."""
    return 2 * math.prod(shape)


def write_processor(output: Path) -> None:
    """The demo checkpoint's tokenizer and processor, with pixel limits that leave a page as it is."""
    for name in COPIED:
        shutil.copyfile(DEMO / name, output / name)
    for name in ("preprocessor_config.json", "processor_config.json"):
        config = json.loads((DEMO / name).read_text(encoding="utf-8"))
        config.get("image_processor", config)["size"] = PIXELS
        write_json(output / name, config)


@click.command(help=__doc__)
@click.argument("output", type=click.Path(path_type=Path, file_okay=False))
@click.option("--layers", default=24, show_default=True, help="Decoder blocks.")
@click.option("--vision-layers", default=27, show_default=True, help="Vision blocks.")
@click.option("--shard-mb", default=500, show_default=True, help="Size of a shard, and of what is held in memory.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--generation", type=click.Choice(GENERATIONS), help="Published form to write.  [default: that of Transformers]"
)
def main(
    output: Path, layers: int, vision_layers: int, shard_mb: int, seed: int, generation: Generation | None
) -> None:
    if output.exists() and any(output.iterdir()):
        raise click.ClickException(f"{output} is not empty")
    if generation is not None:
        write_generation(output, generation, layers, vision_layers, seed)
        return
    output.mkdir(parents=True, exist_ok=True)
    config = checkpoint_config(layers, vision_layers)
    write_processor(output)
    shapes = tensor_shapes(config)
    write_shards(output, shapes, split_into_shards(shapes, shard_mb * 10**6), layers, seed)
    # The config comes last: a folder that has one is complete.
    write_json(output / "config.json", config)


def write_generation(output: Path, generation: Generation, layers: int, vision_layers: int, seed: int) -> None:
    """Write a generation in full, v1.5 with v1.0 in a folder of its own."""
    output.mkdir(parents=True, exist_ok=True)
    config = dressable_config(generation, layers, vision_layers)
    shapes = tensor_shapes(config)
    if generation == "1.5":
        write_file(output / "model.safetensors", shapes | {HEAD: shapes[EMBEDDING]}, layers, seed)
        write_beside(output)
        write_generation(output / "v1.0", "1.0", layers, vision_layers, seed)
    else:
        sizes = {name: bytes_of(shape) for name, shape in shapes.items()}
        write_shards(output, shapes, shard_names(sizes, SHARDS), layers, seed)
    processor = layout.build_published_processor((LEAST_PIXELS, LENGTHS[generation][1]))
    layout.save_processor(processor, output)
    dress(output, config, generation)


if __name__ == "__main__":
    main()
