"""The two published generations of the model: what their files say, and what lies beside the weights.

Both are known from the outside: names, shapes and values of the published files, not the files themselves.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import torch
from safetensors.torch import load_file, save_file

from hyocr_core.testing.tiny import TEXT, VISION, write_checkpoint

Generation: TypeAlias = Literal["1.5", "1.0"]
GENERATIONS: tuple[Generation, ...] = get_args(Generation)

LENGTHS: dict[Generation, tuple[int, int]] = {"1.5": (131072, 4096 * 4096), "1.0": (32768, 2048 * 2048)}
"""Positions of the decoder, and pixels of a page, at most."""
LEAST_PIXELS = 512 * 512
PATCH_PIXELS = 16 * 16

# A page may have 65,536 patches, each of which attends to all: narrow, so that this takes seconds.
_NARROW_TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 1}
_NARROW_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_attention_heads": 1,
    "num_key_value_heads": 1,
}

SHARDS = 4
HEAD = "lm_head.weight"
EMBEDDING = "model.embed_tokens.weight"

# Keys that Transformers does not know or spells otherwise, with their published values.
_TEXT: dict[str, Any] = {
    "add_classification_head": False,
    "architectures": ["HunYuanVLForConditionalGeneration"],
    "class_num": 0,
    "dense_list": [1024, 0],
    "dtype": "bfloat16",
    "expert_hidden_dim": None,
    "first_k_dense_replace": 0,
    "group_limited_greedy": False,
    "kv_lora_rank": 512,
    "mask_init_id": 13,
    "mlp_bias": False,
    "moe_drop_tokens": False,
    "moe_intermediate_size": None,
    "moe_layer_num_skipped": 0,
    "moe_random_routing_dropped_token": False,
    "moe_topk": 1,
    "mtp_loss_factor": 0.1,
    "mtp_no_bias": True,
    "n_group": None,
    "norm_topk_prob": True,
    "norm_type": "rms",
    "num_experts": 1,
    "num_experts_per_tok": 1,
    "num_nextn_predict_layers": 1,
    "num_predictor_layers": 0,
    "num_shared_expert": 1,
    "num_shared_experts": 1,
    "pool_type": "last",
    "q_lora_rank": 1536,
    "qk_nope_head_dim": 128,
    "qk_norm": False,
    "qk_rope_head_dim": 64,
    "routed_scaling_factor": 1.0,
    "sep_token_id": 0,
    "text_end_id": 8,
    "text_start_id": 7,
    "topk_group": None,
    "use_cla": False,
    "use_mixed_mlp_moe": False,
    "use_mla": False,
    "use_qk_norm": True,
    "use_rotary_pos_emb": True,
    "v_head_dim": 128,
    "vision_full_attention": False,
}
_ROPE: dict[str, Any] = {"beta_fast": 32, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0, "type": "xdrope"}
_VISION: dict[str, Any] = {
    "add_patchemb_bias": True,
    "anyres_vit_max_image_size": 2048,
    "cat_extra_token": 1,
    "dtype": "bfloat16",
    "hidden_dropout": 0.0,
    "learnable_mlp_pooling_size": 0,
    "model_type": "hunyuan_vl",
    "perceive_post_norm": True,
    "perceive_pre_norm": True,
    "remove_prenorm": True,
    "resize_resolution": 2048,
    "spatial_patch_size": 1,
    "video_max_image_size": 768,
    "video_min_image_size": 256,
    "vision_full_attention": False,
}
_DRAFT = 'raise RuntimeError("code of a model folder must never run")\n'


def write_generation(folder: Path, generation: Generation, *, full_pages: bool = False) -> None:
    """Write a random checkpoint of a megabyte as that generation is published; v1.5 with v1.0 in a folder below.

    full_pages: with the published limits of pixels and positions, and narrower.
    """
    if full_pages:
        _write_for_full_pages(folder, generation)
    else:
        write_checkpoint(folder)
    config = read_json(folder / "config.json")
    dress(folder, config, generation)
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    if generation == "1.5":
        # A copy: safetensors refuses two names for the same memory.
        tensors[HEAD] = tensors[EMBEDDING].clone()
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        write_beside(folder)
        write_generation(folder / "v1.0", "1.0", full_pages=full_pages)
    else:
        _write_shards(folder, tensors)


def _write_for_full_pages(folder: Path, generation: Generation) -> None:
    positions, pixels = LENGTHS[generation]
    patches = pixels // PATCH_PIXELS
    text = TEXT | _NARROW_TEXT | {"max_position_embeddings": positions}
    vision = VISION | _NARROW_VISION | {"max_vit_seq_len": patches, "img_max_token_num": patches // 4}
    write_checkpoint(folder, text=text, vision=vision, pixels=(LEAST_PIXELS, pixels))


def dress(folder: Path, config: dict[str, Any], generation: Generation) -> None:
    """Replace what Transformers wrote about model, processor and generation by what the published files say.

    config: in Transformers' form. config.json comes last: a folder that has one is complete.
    """
    image = read_json(folder / "preprocessor_config.json")
    (folder / "processor_config.json").unlink()
    write_json(folder / "preprocessor_config.json", published_image_processor(image, generation))
    write_json(folder / "generation_config.json", published_generation_config(config["text_config"], generation))
    write_json(folder / "config.json", published_config(config, generation))


def published_config(config: dict[str, Any], generation: Generation) -> dict[str, Any]:
    """A config of Transformers' form in the published one: nested in v1.5, text keys at the top in v1.0."""
    text: dict[str, Any] = config["text_config"] | _TEXT
    rope = text.pop("rope_parameters")
    text |= {
        "attention_head_dim": text["head_dim"],
        "image_newline_token_id": config["im_newline_id"],
        "org_vocab_size": text["vocab_size"],
        "pad_id": text["pad_token_id"],
        "rope_scaling": _ROPE
        | {"alpha": rope["alpha"], "factor": rope["factor"], "xdrope_section": rope["mrope_section"]},
        "rope_theta": rope["rope_theta"],
    }
    nested = {"text_config", "vision_config", "transformers_version"}
    top = {key: value for key, value in config.items() if key not in nested}
    vision = config["vision_config"] | _VISION
    if generation == "1.5":
        return top | {"text_config": text, "vision_config": vision}
    return text | top | {"pad_token_id": -1, "vision_config": vision}


def published_generation_config(text: dict[str, Any], generation: Generation) -> dict[str, Any]:
    """text: the text config."""
    config: dict[str, Any] = {
        "bos_token_id": text["bos_token_id"],
        "eos_token_id": [text["eos_token_id"], text["eod_token_id"]],
        "pad_token_id": text["pad_token_id"],
        "transformers_version": "5.13.0",
    }
    return config if generation == "1.5" else config | {"repetition_penalty": 1.03}


def published_image_processor(image: dict[str, Any], generation: Generation) -> dict[str, Any]:
    """image: the preprocessor config, whose `size` v1.0 calls otherwise."""
    if generation == "1.5":
        return image
    size = image["size"]
    pixels = {"min_pixels": size["shortest_edge"], "max_pixels": size["longest_edge"]}
    return {key: value for key, value in image.items() if key != "size"} | pixels | {"resample": 1}


def write_beside(folder: Path) -> None:
    """The folders beside v1.5 that are not the model: a draft model with code of its own, and pictures."""
    draft = folder / "dflash"
    draft.mkdir()
    write_json(draft / "config.json", {"architectures": ["DFlashDraftModel"], "model_type": "qwen3", "block_size": 16})
    (draft / "dflash.py").write_text(_DRAFT, encoding="utf-8")
    weights = {"fc.weight": torch.full((8, 8), torch.nan, dtype=torch.bfloat16)}
    save_file(weights, draft / "model.safetensors", metadata={"format": "pt"})
    (folder / "assets").mkdir()
    (folder / "assets" / "pipeline.png").write_bytes(b"\x89PNG\r\n\x1a\n")


def read_json(path: Path) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return value


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def shard_names(sizes: dict[str, int], count: int) -> list[list[str]]:
    """Names in order in at most `count` shards of about the same size. sizes: name -> bytes."""
    shards: list[list[str]] = [[]]
    held, rest = 0, sum(sizes.values())
    for name, size in sizes.items():
        if shards[-1] and len(shards) < count and held + size > rest / (count - len(shards) + 1):
            shards.append([])
            held, rest = 0, rest - held
        shards[-1].append(name)
        held += size
    return shards


def _write_shards(folder: Path, tensors: dict[str, torch.Tensor]) -> None:
    weight_map: dict[str, str] = {}
    sizes = {name: tensor.nbytes for name, tensor in tensors.items()}
    for number, names in enumerate(shard_names(sizes, SHARDS), 1):
        file = f"model-{number:05d}-of-{SHARDS:05d}.safetensors"
        save_file({name: tensors[name] for name in names}, folder / file, metadata={"format": "pt"})
        weight_map |= dict.fromkeys(names, file)
    metadata = {"total_size": sum(sizes.values())}
    write_json(folder / "model.safetensors.index.json", {"metadata": metadata, "weight_map": weight_map})
