"""Hyper-parameters of the two parts, as llama.cpp reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gguf import GGUFType, GGUFWriter, LlamaFileType, RopeScalingType, VisionProjectorType

from hyocr_core import CheckpointError

if TYPE_CHECKING:
    from hyocr_plugin_gguf.opened import Opened

ARCHITECTURE = "hunyuan_vl"
VISION_ARCHITECTURE = "clip"
FILE_TYPES = {
    "f16": LlamaFileType.MOSTLY_F16,
    "q4_0": LlamaFileType.MOSTLY_Q4_0,
    "q4_1": LlamaFileType.MOSTLY_Q4_1,
    "q8_0": LlamaFileType.MOSTLY_Q8_0,
    "q4_k_m": LlamaFileType.MOSTLY_Q4_K_M,
    "q6_k": LlamaFileType.MOSTLY_Q6_K,
}
QUANTIZATION_VERSION = 2


def add_text(writer: GGUFWriter, opened: Opened, kind: str) -> None:
    """Write what the decoder is; kind: the type of most of its linears."""
    text = opened.config.text_config
    rope = text.rope_parameters
    writer.add_type(GGUFType.MODEL)
    _add_general(writer, opened, kind)
    writer.add_vocab_size(text.vocab_size)
    writer.add_context_length(text.max_position_embeddings)
    writer.add_embedding_length(text.hidden_size)
    writer.add_block_count(text.num_hidden_layers)
    writer.add_feed_forward_length(text.intermediate_size)
    writer.add_head_count(text.num_attention_heads)
    writer.add_head_count_kv(text.num_key_value_heads)
    writer.add_key_length(text.head_dim)
    writer.add_value_length(text.head_dim)
    writer.add_layer_norm_rms_eps(text.rms_norm_eps)
    writer.add_rope_dimension_count(text.head_dim)
    writer.add_rope_freq_base(float(rope["rope_theta"]))
    writer.add_rope_scaling_type(RopeScalingType.NONE)
    writer.add_rope_scaling_factor(float(rope.get("factor", 1.0)))
    writer.add_rope_scaling_alpha(float(rope["alpha"]))
    writer.add_rope_scaling_orig_ctx_len(text.max_position_embeddings)
    writer.add_rope_dimension_sections(_sections(opened, rope))


def add_vision(writer: GGUFWriter, opened: Opened, kind: str) -> None:
    """Write what the vision part is and how pages are resized; kind: the type of most of its linears."""
    vision = opened.config.vision_config
    pages = preprocessing(opened)
    writer.add_type(GGUFType.MMPROJ)
    _add_general(writer, opened, kind)
    writer.add_clip_has_vision_encoder(True)
    writer.add_clip_projector_type(VisionProjectorType.HUNYUANVL)
    writer.add_vision_projection_dim(opened.config.text_config.hidden_size)
    writer.add_vision_image_size(vision.max_image_size)
    writer.add_vision_patch_size(vision.patch_size)
    writer.add_vision_embedding_length(vision.hidden_size)
    writer.add_vision_feed_forward_length(vision.intermediate_size)
    writer.add_vision_block_count(vision.num_hidden_layers)
    writer.add_vision_head_count(vision.num_attention_heads)
    writer.add_vision_attention_layernorm_eps(vision.rms_norm_eps)
    writer.add_vision_spatial_merge_size(vision.spatial_merge_size)
    writer.add_vision_use_gelu(True)
    writer.add_vision_image_mean(pages["image_mean"])
    writer.add_vision_image_std(pages["image_std"])
    least, most = pixels(opened, pages)
    writer.add_vision_min_pixels(least)
    writer.add_vision_max_pixels(most)


def preprocessing(opened: Opened) -> dict[str, Any]:
    """How pages are made ready, from either file that says so."""
    found = opened.read_json("preprocessor_config.json") or {}
    found |= (opened.read_json("processor_config.json") or {}).get("image_processor", {})
    for key in ("image_mean", "image_std"):
        if key not in found:
            raise CheckpointError(f"{opened.folder}: no preprocessor_config.json or processor_config.json has {key}")
    return found


def pixels(opened: Opened, pages: dict[str, Any]) -> tuple[int, int]:
    """The least and the most pixels of a page: v1.0 has keys of their own for them, v1.5 has `size`."""
    size = pages.get("size") or {}
    least = pages.get("min_pixels") or size.get("shortest_edge") or size.get("min_pixels")
    most = pages.get("max_pixels") or size.get("longest_edge") or size.get("max_pixels")
    if not least or not most:
        raise CheckpointError(f"{opened.folder}: preprocessor_config.json says neither max_pixels nor size")
    return int(least), int(most)


def _add_general(writer: GGUFWriter, opened: Opened, kind: str) -> None:
    writer.add_name(str(opened.raw.get("_name_or_path") or "HunyuanOCR"))
    writer.add_file_type(FILE_TYPES[kind])
    writer.add_quantization_version(QUANTIZATION_VERSION)


def _sections(opened: Opened, rope: dict[str, Any]) -> list[int]:
    found = rope.get("mrope_section") or rope.get("xdrope_section")
    if not isinstance(found, list) or len(found) != 4:
        raise CheckpointError(f"{opened.folder / 'config.json'}: llama.cpp needs four sections of rotary channels")
    return [int(part) for part in found]
