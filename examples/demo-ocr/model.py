"""The demo checkpoint's config, byte-level tokenizer, processor and chat template, in the published layout."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from lines import HEIGHT, QUESTION, WIDTH
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    HunYuanVLConfig,
    HunYuanVLForConditionalGeneration,
    HunYuanVLImageProcessorPil,
    HunYuanVLProcessor,
    PreTrainedTokenizerFast,
)

BOS = "<｜hy_begin▁of▁sentence｜>"
END = "<｜hy_end▁of▁sentence｜>"
PAD = "<｜hy_▁pad▁｜>"
USER = "<｜hy_User｜>"
ASSISTANT = "<｜hy_Assistant｜>"
EOD = "<｜hy_place▁holder▁no▁2｜>"
SYSTEM_END = "<｜hy_place▁holder▁no▁3｜>"
IMAGE_START = "<｜hy_place▁holder▁no▁100｜>"
IMAGE_END = "<｜hy_place▁holder▁no▁101｜>"
IMAGE = "<｜hy_place▁holder▁no▁102｜>"
IMAGE_NEWLINE = "<｜hy_place▁holder▁no▁103｜>"
SPECIAL = (BOS, END, PAD, USER, ASSISTANT, EOD, SYSTEM_END, IMAGE_START, IMAGE_END, IMAGE, IMAGE_NEWLINE)
VOCAB = 384  # 256 bytes, the special tokens, one token for the question; a multiple of 128

# A turn ends with <User> when the user made it and with <Assistant> when the model did, as in the published model.
CHAT_TEMPLATE = (
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'system' -%}"
    f"{{%- if loop.first -%}}{{{{- '{BOS}' -}}}}{{%- endif -%}}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}"
    f"{{{{- '{SYSTEM_END}' -}}}}"
    "{%- elif message['role'] == 'user' -%}"
    "{%- if loop.first or messages[loop.index0 - 1]['role'] != 'system' -%}"
    f"{{{{- '{BOS}' -}}}}"
    "{%- endif -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}"
    "{%- if part['type'] in ('image', 'image_url') or 'image' in part -%}"
    f"{{{{- '{IMAGE_START}{IMAGE}{IMAGE_END}' -}}}}"
    "{%- elif 'text' in part -%}{{- part['text'] -}}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}"
    f"{{{{- '{USER}' -}}}}"
    "{%- elif message['role'] == 'assistant' -%}"
    "{%- if message['content'] is string -%}{{- message['content'] -}}"
    "{%- else -%}{%- for part in message['content'] -%}{{- part['text'] -}}{%- endfor -%}{%- endif -%}"
    f"{{{{- '{ASSISTANT}' -}}}}"
    "{%- endif -%}{%- endfor -%}"
)


def token_id(tokenizer: PreTrainedTokenizerFast, token: str) -> int:
    """The id of one token of the vocabulary."""
    found = tokenizer.convert_tokens_to_ids(token)
    if not isinstance(found, int):
        raise TypeError(token)
    return found


def build_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte; the question is one added token, so that the prompt stays short."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={char: index for index, char in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    core.add_tokens([AddedToken(QUESTION, special=False, normalized=False)])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=ASSISTANT,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        model_max_length=2048,
        extra_special_tokens={
            "image_token": IMAGE,
            "image_start_token": IMAGE_START,
            "image_end_token": IMAGE_END,
        },
    )


def build_processor() -> HunYuanVLProcessor:
    """The published processor; its pixel limits leave a 256x32 line as it is."""
    image_processor = HunYuanVLImageProcessorPil(size={"shortest_edge": HEIGHT * HEIGHT, "longest_edge": 2 * WIDTH**2})
    return HunYuanVLProcessor(image_processor, build_tokenizer(), chat_template=CHAT_TEMPLATE)


def build_config(tokenizer: PreTrainedTokenizerFast) -> HunYuanVLConfig:
    """The published architecture, small; every decoder width is a multiple of 128."""
    ids = {token: token_id(tokenizer, token) for token in SPECIAL}
    text = {
        "vocab_size": VOCAB,
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 64,
        "max_position_embeddings": 2048,
        "rope_parameters": {
            "rope_type": "dynamic",
            "rope_theta": 10000.0,
            "alpha": 1000.0,
            "factor": 1.0,
            "mrope_section": [8, 8, 8, 8],
        },
        "pad_token_id": ids[PAD],
        "bos_token_id": ids[BOS],
        "eos_token_id": ids[ASSISTANT],
        "eod_token_id": ids[EOD],
        "sep_token_id": ids[SYSTEM_END],
    }
    vision = {
        "hidden_size": 192,
        "intermediate_size": 512,
        "num_hidden_layers": 4,
        "num_attention_heads": 3,
        "num_key_value_heads": 3,
        "max_image_size": WIDTH,
        "min_image_size": HEIGHT,
        "img_max_token_num": 1024,
        "max_vit_seq_len": 1024,
        "out_hidden_size": 256,
        "text_hidden_size": 256,
    }
    special: dict[str, Any] = {
        "image_token_id": ids[IMAGE],
        "im_start_id": ids[IMAGE_START],
        "im_end_id": ids[IMAGE_END],
        "im_newline_id": ids[IMAGE_NEWLINE],
        "pad_token_id": ids[PAD],
        "bos_token_id": ids[BOS],
        "eos_token_id": ids[ASSISTANT],
    }
    return HunYuanVLConfig(text_config=text, vision_config=vision, dtype="bfloat16", **special)


def build_model(seed: int, dtype: torch.dtype = torch.float32) -> Any:
    """A randomly initialised HunYuanVLForConditionalGeneration."""
    torch.manual_seed(seed)
    model: Any = HunYuanVLForConditionalGeneration(build_config(build_tokenizer()))
    return model.to(dtype)


def _write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _generation_config(text: Any) -> GenerationConfig:
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 64}
    stops = [text.eos_token_id, text.eod_token_id]
    ids = {"bos_token_id": text.bos_token_id, "eos_token_id": stops, "pad_token_id": text.pad_token_id}
    return GenerationConfig(**settings, **ids)  # type: ignore[no-untyped-call]


def save_checkpoint(weights: dict[str, torch.Tensor], target: Path) -> None:
    """Write the whole checkpoint in bf16 next to the target, then put it in the target's place."""
    staging, old = target.with_name(target.name + ".new"), target.with_name(target.name + ".old")
    for leftover in (staging, old):
        shutil.rmtree(leftover, ignore_errors=True)
    model = build_model(0, torch.bfloat16)
    model.load_state_dict({name: tensor.to(torch.bfloat16) for name, tensor in weights.items()}, strict=False)
    model.tie_weights()
    torch.nn.init.zeros_(model.model.vision_tower.patch_merger.image_sep)  # read by no image of the architecture
    model.generation_config = _generation_config(model.config.text_config)
    staging.mkdir(parents=True)
    model.save_pretrained(staging)
    (staging / "model.safetensors").chmod(0o644)
    build_processor().save_pretrained(staging)
    combined = json.loads((staging / "processor_config.json").read_text(encoding="utf-8"))
    image = combined.get("image_processor", {})
    _write_json(staging / "preprocessor_config.json", {**image, "processor_class": "HunYuanVLProcessor"})
    if target.exists():
        target.rename(old)
    staging.rename(target)
    shutil.rmtree(old, ignore_errors=True)
