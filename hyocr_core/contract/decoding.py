"""How answers are written: what backends are told, and what a result says of it. Imports no torch."""

from __future__ import annotations

from pydantic import Field

from hyocr_core.contract.config import FrozenModel
from hyocr_core.wording import phrase, tr


class Decoding(FrozenModel):
    """Greedily, and beside that as follows; the same for all whose answers are compared."""

    repetition_penalty: float | None = Field(
        ge=1,
        description="what the logits of all tokens in prompt and answer are divided by where they are positive and "
        "multiplied by elsewhere; 1 changes nothing, None leaves it to what reads",
    )
    max_new_tokens: int = Field(ge=1, description="most tokens of an answer; the model's context may leave fewer")
    stop_loops: bool = Field(description="whether an answer ends where it begins to repeat itself")
    stop_token_ids: tuple[int, ...] = Field(
        (), description="tokens that end an answer; empty leaves them to what reads"
    )

    def __str__(self) -> str:
        said = phrase("repetition penalty {penalty}, at most {tokens} new tokens, loops kept")
        if self.stop_loops:
            said = phrase("repetition penalty {penalty}, at most {tokens} new tokens, loops stopped")
        penalty = tr("its own") if self.repetition_penalty is None else f"{self.repetition_penalty:g}"
        return tr(said, penalty=penalty, tokens=self.max_new_tokens)
