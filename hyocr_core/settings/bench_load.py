"""The settings of a measurement of speed, for `hyocr bench` and `hyocr_core.bench`: what is read, and how often."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

from hyocr_core.contract.config import FrozenModel, parse_config
from hyocr_core.errors import ConfigError
from hyocr_core.settings.eval_config import EvalConfig, merge_eval_config

READING = (
    *("baseline", "backend", "baseline_backend", "backend_options", "python", "timeout", "task", "system"),
    *("num_samples", "max_pixels", "revision", "repetition_penalty"),
)
"""Keys of an evaluation that a measurement has too, beside `model`, `data` and `max_new_tokens`."""
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
    turns: int = Field(1, ge=1, description="how often each checkpoint is loaded, warmed up and measured")
    repetitions: int = Field(7, ge=1, description="measurements of each number of pages at once, in a turn")
    together: bool = Field(True, description="have both checkpoints loaded, and measure them alternately")
    first_token: bool = Field(True, description="measure when the first token of an answer is there")


def merge_bench_config(
    settings: Mapping[str, Any], plugins: Mapping[str, Sequence[str]] | None = None
) -> tuple[EvalConfig, BenchLoad]:
    """What reads, and how its speed is measured. plugins: as `merge_eval_config` takes them. Raises ConfigError."""
    known = {"model", "data", "max_new_tokens", *READING, *BenchLoad.model_fields}
    given = {key: value for key, value in settings.items() if value is not None}
    for key in given.keys() - known:
        raise ConfigError(f"bench: unknown key {key}; known are {', '.join(sorted(known))}")
    load = parse_config(BenchLoad, {key: given.pop(key) for key in BenchLoad.model_fields if key in given}, "bench")
    return merge_eval_config(None, {"data": PAGES, "max_new_tokens": MAX_NEW_TOKENS} | given, plugins), load
