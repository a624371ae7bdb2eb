"""The names of tensors in GGUF."""

from __future__ import annotations

import re

from hyocr_core import CheckpointError

TEXT = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
}
TEXT_BLOCK = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.query_layernorm": "attn_q_norm",
    "self_attn.key_layernorm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
VISION = {
    "vit.embeddings.patch_embedding": "v.patch_embd",
    "vit.embeddings.position_embedding": "v.position_embd",
    "vit.perceive.before_rms": "mm.pre_norm",
    "vit.perceive.after_rms": "mm.post_norm",
    "vit.perceive.proj.0": "mm.0",
    "vit.perceive.proj.2": "mm.2",
    "vit.perceive.mlp": "mm.model.fc",
}
VISION_ROWS = {
    "vit.perceive.image_begin": "mm.image_begin",
    "vit.perceive.image_end": "mm.image_end",
    "vit.perceive.image_newline": "v.image_newline",
    "vit.perceive.image_sep": "v.view_seperator",
}
"""Single rows, whose names have no `weight` at their end. The spelling of the last is llama.cpp's."""
VISION_BLOCK = {
    "input_layernorm": "ln1",
    "post_attention_layernorm": "ln2",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_out",
    "mlp.dense_h_to_4h": "ffn_up",
    "mlp.dense_4h_to_h": "ffn_down",
}
_BLOCK = re.compile(r"(model|vit)\.layers\.(\d+)\.(.+)")


def gguf_module(name: str) -> str:
    """The name in GGUF of the module with this published name; raises CheckpointError when it has none."""
    match = _BLOCK.fullmatch(name)
    if match is None:
        found = (TEXT | VISION).get(name)
    else:
        own = (TEXT_BLOCK if match[1] == "model" else VISION_BLOCK).get(match[3])
        found = own and f"{'' if match[1] == 'model' else 'v.'}blk.{match[2]}.{own}"
    if found is None:
        raise CheckpointError(f"{name} has no name in GGUF")
    return found


def gguf_name(name: str) -> str:
    """The name in GGUF of the tensor with this published name; raises CheckpointError when it has none."""
    if name in VISION_ROWS:
        return VISION_ROWS[name]
    module, _, local = name.rpartition(".")
    return f"{gguf_module(module)}.{local}"


def is_vision(name: str) -> bool:
    """Whether a published name is of the vision part, which llama.cpp reads from a file of its own."""
    return name.startswith("vit.")
