"""What a checkpoint's files say of its decoding, and what holds where they are silent."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import HunYuanVLConfig

from hyocr_core.contract.decoding import Decoding
from hyocr_core.errors import CheckpointError
from hyocr_core.models.own_decoding import own_decoding

PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "1.5": (
        {"text_config": {"max_position_embeddings": 131072, "eos_token_id": 120007}},
        {"bos_token_id": 120000, "eos_token_id": [120007, 120020], "pad_token_id": 120002},
    ),
    "1.5, an older revision": (
        {"text_config": {"max_position_embeddings": 131072, "eos_token_id": 120007}},
        {"eos_token_id": 120020},
    ),
    "1.0": (
        {"max_position_embeddings": 32768, "eos_token_id": 120007, "pad_token_id": -1},
        {"eos_token_id": [120007, 120020], "repetition_penalty": 1.03},
    ),
}


def own(folder: Path, config: dict[str, Any], said: object, tokenizer_end: int | None = 120007) -> Decoding:
    if said is not None:
        (folder / "generation_config.json").write_text(said if isinstance(said, str) else json.dumps(said))
    text_config = HunYuanVLConfig.from_dict({"model_type": "hunyuan_vl", **config}).text_config
    return own_decoding(folder, text_config, SimpleNamespace(eos_token_id=tokenizer_end))


@pytest.mark.parametrize(
    ("published", "penalty", "limit", "ends"),
    [
        ("1.5", 1.08, 32768, {120007, 120020}),
        ("1.5, an older revision", 1.08, 32768, {120007, 120020}),
        ("1.0", 1.03, 32768, {120007, 120020}),
    ],
)
def test_the_published_ones(tmp_path: Path, published: str, penalty: float, limit: int, ends: set[int]) -> None:
    found = own(tmp_path, *PUBLISHED[published])
    assert (found.repetition_penalty, found.max_new_tokens, set(found.stop_token_ids)) == (penalty, limit, ends)
    assert found.stop_loops


def test_what_a_copy_of_either_says_itself_counts(tmp_path: Path) -> None:
    """A fine-tuned v1.5 whose owner wrote a penalty down, be it none at all, and v1.0 in Transformers' form."""
    (config, said), (old, _) = PUBLISHED["1.5"], PUBLISHED["1.0"]
    found = own(tmp_path, config, said | {"repetition_penalty": 1.0, "max_new_tokens": 99, "do_sample": True})
    assert (found.repetition_penalty, found.max_new_tokens) == (1.0, 99)
    assert own(tmp_path, {"text_config": old}, {"eos_token_id": 120007}).repetition_penalty == 1.0


def test_a_short_context_is_the_limit(tmp_path: Path) -> None:
    config = {"text_config": {"max_position_embeddings": 2048, "eos_token_id": 7}}
    found = own(tmp_path, config, None, tokenizer_end=None)
    assert (found.repetition_penalty, found.max_new_tokens, found.stop_token_ids) == (1.0, 2048, (7,))


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ("{", "cannot be read as JSON: EOF while"),
        ("[]", "must hold a JSON object, not list"),
        ({"repetition_penalty": 0.9}, "repetition_penalty = 0.9: should be greater than or equal to 1"),
        ({"repetition_penalty": "much"}, "repetition_penalty = 'much'"),
        ({"max_new_tokens": 0}, "max_new_tokens = 0: should be greater than or equal to 1"),
        ({"eos_token_id": "<end>"}, "eos_token_id"),
    ],
)
def test_a_file_that_cannot_be_used_is_named(tmp_path: Path, said: object, message: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        own(tmp_path, PUBLISHED["1.5"][0], said)
    assert f"{tmp_path / 'generation_config.json'}: " in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_without_any_end_no_answer_ends(tmp_path: Path) -> None:
    config = {"text_config": {"eos_token_id": None}}
    with pytest.raises(CheckpointError, match=r"no eos_token_id in generation_config\.json, config\.json or"):
        own(tmp_path, config, None, tokenizer_end=None)
