"""What a run has done so far, as its journal keeps it."""

from __future__ import annotations

from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.quant_report import LayerRecord
from hyocr_core.contract.config import FrozenModel

PREPARED = "prepared"
"""The part of the stage that holds the tensors which a method's `prepare` replaced."""


class BlockRecord(FrozenModel):
    """A finished block.

    bytes: of its part's tensors. rescaled: those that are not quantized, but changed by scales. sha256: of its file.
    """

    layers: tuple[LayerRecord, ...]
    bytes: int
    rescaled: tuple[str, ...]
    sha256: str


class PreparedRecord(FrozenModel):
    """What a method's `prepare` decided; see `types.Prepared`. sha256: of the part of replaced tensors, if any are."""

    overrides: dict[str, dict[str, Any]]
    tensors: tuple[str, ...]
    config: dict[str, Any]
    sha256: str | None


class RunRecord(BaseModel):
    """Keys of `blocks` are those of their places; a block is done when its part is there too.

    pages: index of a sample -> digest of its page and texts. inputs: file in the stage with a sample at the input of a
    tower -> SHA-256. embedded: how many samples are at the input of the decoder, once all of them are.
    """

    model_config = ConfigDict(extra="forbid")

    prepared: PreparedRecord | None = None
    pages: dict[str, str] = Field(default_factory=dict)
    inputs: dict[str, str] = Field(default_factory=dict)
    embedded: int | None = None
    blocks: dict[str, BlockRecord] = Field(default_factory=dict)


RunJournal: TypeAlias = Journal[RunRecord]
