"""The published layout in small: byte-level tokenizer, processor, chat template and config of HunyuanOCR.

The demo checkpoint of the repository and the kit's random one are both made of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GenerationConfig,
    HunYuanVLConfig,
    HunYuanVLProcessor,
    PreTrainedTokenizerFast,
)

# Not from `transformers` itself, which below 5.22 gives a stand-in for it where torchvision is missing.
from transformers.models.hunyuan_vl.image_processing_pil_hunyuan_vl import HunYuanVLImageProcessorPil

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
VOCAB = 384
"""256 bytes, the special tokens, a token for each question; a multiple of 128."""

PUBLISHED_VOCAB = 120818
PUBLISHED_IDS = {
    BOS: 120000,
    END: 120001,
    PAD: 120002,
    USER: 120006,
    ASSISTANT: 120007,
    EOD: 120020,
    SYSTEM_END: 120021,
    IMAGE_START: 120118,
    IMAGE_END: 120119,
    IMAGE: 120120,
    IMAGE_NEWLINE: 120121,
}
"""Where the published vocabulary has the special tokens."""

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


def build_tokenizer(*questions: str) -> PreTrainedTokenizerFast:
    """One token per byte; each question is one added token, so that the prompt stays short."""
    tokenizer = _tokenizer(_bytes())
    tokenizer.add_tokens([AddedToken(question, special=False, normalized=False) for question in questions])
    return tokenizer


def build_published_tokenizer() -> PreTrainedTokenizerFast:
    """One token per byte in a vocabulary of the published size, the special tokens at their published ids."""
    names = {index: token for token, index in PUBLISHED_IDS.items()}
    known = _bytes()
    # No merge leads to a filler, so that no text becomes one.
    return _tokenizer(known | {names.get(i, f"<filler {i}>"): i for i in range(len(known), PUBLISHED_VOCAB)})


def _bytes() -> dict[str, int]:
    return {char: index for index, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}


def _tokenizer(vocab: dict[str, int]) -> PreTrainedTokenizerFast:
    core = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    # Those that the vocabulary has already keep their ids.
    core.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core,
        bos_token=BOS,
        eos_token=ASSISTANT,
        pad_token=PAD,
        padding_side="left",
        clean_up_tokenization_spaces=False,
        extra_special_tokens={
            "image_token": IMAGE,
            "image_start_token": IMAGE_START,
            "image_end_token": IMAGE_END,
        },
    )


def build_processor(*questions: str, pixels: tuple[int, int]) -> HunYuanVLProcessor:
    """The published processor. pixels: the least and the most that a page has; other pages are resized."""
    return _processor(build_tokenizer(*questions), pixels)


def build_published_processor(pixels: tuple[int, int]) -> HunYuanVLProcessor:
    """The same with the published ids."""
    return _processor(build_published_tokenizer(), pixels)


def _processor(tokenizer: PreTrainedTokenizerFast, pixels: tuple[int, int]) -> HunYuanVLProcessor:
    size = {"shortest_edge": pixels[0], "longest_edge": pixels[1]}
    return HunYuanVLProcessor(HunYuanVLImageProcessorPil(size=size), tokenizer, chat_template=CHAT_TEMPLATE)


def build_config(
    tokenizer: PreTrainedTokenizerFast, text: Mapping[str, Any], vision: Mapping[str, Any]
) -> HunYuanVLConfig:
    """The published architecture. text, vision: the shapes of decoder and vision tower."""
    ids = {token: token_id(tokenizer, token) for token in SPECIAL}
    ends: dict[str, Any] = {"pad_token_id": ids[PAD], "bos_token_id": ids[BOS], "eos_token_id": ids[ASSISTANT]}
    rope = {
        "rope_type": "dynamic",
        "rope_theta": 10000.0,
        "alpha": 1000.0,
        "factor": 1.0,
        "mrope_section": [text["head_dim"] // 8] * 4,
    }
    stops = {"eod_token_id": ids[EOD], "sep_token_id": ids[SYSTEM_END]}
    shared = {"vocab_size": VOCAB, "max_position_embeddings": 2048, "rope_parameters": rope}
    widths = {"out_hidden_size": text["hidden_size"], "text_hidden_size": text["hidden_size"]}
    special: dict[str, Any] = {
        "image_token_id": ids[IMAGE],
        "im_start_id": ids[IMAGE_START],
        "im_end_id": ids[IMAGE_END],
        "im_newline_id": ids[IMAGE_NEWLINE],
    }
    return HunYuanVLConfig(
        text_config={**shared, **text, **ends, **stops},
        vision_config={**vision, **widths},
        dtype="bfloat16",
        **special,
        **ends,
    )


def save_checkpoint(model: Any, processor: HunYuanVLProcessor, folder: Path) -> None:
    """Write model and processor as a checkpoint folder in the published layout."""
    model.generation_config = _generation_config(model.config.text_config)
    folder.mkdir(parents=True)
    model.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    save_processor(processor, folder)


def save_processor(processor: HunYuanVLProcessor, folder: Path) -> None:
    """Write tokenizer, template and image processor into a folder; the last in both files that are read for it."""
    processor.save_pretrained(folder)
    combined = json.loads((folder / "processor_config.json").read_text(encoding="utf-8"))
    image = {**combined.get("image_processor", {}), "processor_class": "HunYuanVLProcessor"}
    text = json.dumps(image, indent=2, ensure_ascii=False) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def _generation_config(text: Any) -> GenerationConfig:
    settings: dict[str, Any] = {"do_sample": False, "max_new_tokens": 64}
    stops = [text.eos_token_id, text.eod_token_id]
    ids = {"bos_token_id": text.bos_token_id, "eos_token_id": stops, "pad_token_id": text.pad_token_id}
    return GenerationConfig(**settings, **ids)  # type: ignore[no-untyped-call]
