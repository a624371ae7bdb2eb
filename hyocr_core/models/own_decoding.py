"""How a checkpoint is meant to write: what its files say, and where they are silent what its makers' clients send."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from hyocr_core.checkpoint.reader import CONFIG_NAME
from hyocr_core.contract.config import parse_config
from hyocr_core.contract.decoding import Decoding
from hyocr_core.errors import CheckpointError, ConfigError
from hyocr_core.outside.json_text import read_object

FILE_NAME = "generation_config.json"

MAX_NEW_TOKENS = 32768
"""The limit that the official clients of v1.5 send, for vLLM and for Transformers."""

PENALTY = 1.08
"""The repetition penalty that they send. v1.5's own generation_config.json has none, as if it were 1; v1.0's has its
own, 1.03."""

POSITIONS = 131072
"""The published v1.5 has so many positions, v1.0 has 32768. A fine-tuned or quantized copy keeps them, and is read as
v1.5 is. That its config.json is nested is no sign of v1.5: Transformers writes v1.0 nested too."""

Token = Annotated[int, Field(ge=0, lt=2**31)]


class _Said(BaseModel):
    """What counts of generation_config.json: nothing that samples or searches."""

    repetition_penalty: Annotated[float, Field(ge=1)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1)] | None = None
    eos_token_id: Token | tuple[Token, ...] | None = None


def own_decoding(folder: Path, text_config: Any, tokenizer: Any) -> Decoding:
    """The decoding of a checkpoint. text_config: that of Transformers' HunYuanVLConfig.

    An answer ends at the end of generation_config.json, which may list several, or at the tokenizer's: revisions of the
    published file lack the one or the other. Raises CheckpointError for a file that cannot be used, or without any end.
    """
    said = _read(folder / FILE_NAME)
    return Decoding(
        repetition_penalty=_penalty(said, text_config),
        max_new_tokens=said.max_new_tokens or min(MAX_NEW_TOKENS, text_config.max_position_embeddings),
        stop_loops=True,
        stop_token_ids=_ends(folder, said, text_config, tokenizer),
    )


def own_penalty(folder: Path, text_config: Any) -> float:
    """The repetition penalty of that decoding alone. Raises CheckpointError for a file that cannot be used."""
    return _penalty(_read(folder / FILE_NAME), text_config)


def _penalty(said: _Said, text_config: Any) -> float:
    if said.repetition_penalty is not None:
        return said.repetition_penalty
    return PENALTY if text_config.max_position_embeddings == POSITIONS else 1.0


def _read(path: Path) -> _Said:
    return _parse(read_object(path, CheckpointError), path) if path.is_file() else _Said()


def _parse(data: Mapping[str, Any], path: Path) -> _Said:
    try:
        return parse_config(_Said, data, str(path))
    except ConfigError as error:
        raise CheckpointError(str(error)) from error


def _ends(folder: Path, said: _Said, text_config: Any, tokenizer: Any) -> tuple[int, ...]:
    known = said.eos_token_id
    if known is None:
        known = _parse({"eos_token_id": text_config.eos_token_id}, folder / CONFIG_NAME).eos_token_id
    listed = [known] if isinstance(known, int) else list(known or ())
    if tokenizer.eos_token_id is not None:
        listed.append(int(tokenizer.eos_token_id))
    if not listed:
        raise CheckpointError(f"{folder}: no eos_token_id in {FILE_NAME}, config.json or the tokenizer")
    return tuple(dict.fromkeys(listed))
