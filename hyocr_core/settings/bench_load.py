"""What `hyocr bench` lets be read, and how often."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from hyocr_core.contract.config import FrozenModel

PAGES = "synthetic:8"
"""What is read where nobody says what."""
MAX_NEW_TOKENS = 512
"""Of an answer, where nobody says how many: a damaged model that goes on for ever tells nothing of its speed."""


def _numbers(value: Any) -> Any:
    return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value


def _rising(value: tuple[int, ...]) -> tuple[int, ...]:
    if not value or list(value) != sorted(set(value)):
        raise ValueError("should be numbers that rise, such as 1,4,16")
    return value


class BenchLoad(FrozenModel):
    """How a checkpoint's speed is measured."""

    at_once: Annotated[
        tuple[Annotated[int, Field(ge=1, le=1024)], ...], BeforeValidator(_numbers), AfterValidator(_rising)
    ] = Field((1, 4, 16), description="pages that are read at once, in turn")
    turns: int = Field(2, ge=1, description="how often each checkpoint is loaded, warmed up and measured")
    repetitions: int = Field(2, ge=1, description="measurements of each number of pages at once, in a turn")
    first_token: bool = Field(True, description="measure when the first token of an answer is there")
