"""What a run has done so far, as its journal keeps it."""

from __future__ import annotations

from typing import Any, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from hyocr_core.checkpoint.journal import Journal
from hyocr_core.checkpoint.quant_report import LayerRecord
from hyocr_core.contract.config import FrozenModel


class BlockRecord(FrozenModel):
    """A finished block. bytes: of its part. rescaled: tensors in it that are not quantized, but changed by scales."""

    layers: tuple[LayerRecord, ...]
    bytes: int
    rescaled: tuple[str, ...]


class PreparedRecord(FrozenModel):
    """What a method's `prepare` decided; replaced tensors are a part of their own. See `types.Prepared`."""

    overrides: dict[str, dict[str, Any]]
    tensors: tuple[str, ...]
    config: dict[str, Any]


class RunRecord(BaseModel):
    """Keys of `blocks` are those of their places, those of `samples` say for which tower a sample was embedded.

    samples: the digest of each. embedded: how many are at the input of the decoder, once all of them are.
    """

    model_config = ConfigDict(extra="forbid")

    prepared: PreparedRecord | None = None
    samples: dict[str, str] = Field(default_factory=dict)
    embedded: int | None = None
    blocks: dict[str, BlockRecord] = Field(default_factory=dict)


RunJournal: TypeAlias = Journal[RunRecord]
