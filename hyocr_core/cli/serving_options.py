"""What `hyocr quant --dry-run` and `hyocr doctor MODEL` are asked about serving."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import wraps
from typing import TYPE_CHECKING, Any

import click

from hyocr_core.cli.common import print_table, say
from hyocr_core.contract.config import parse_config
from hyocr_core.errors import ConfigError

if TYPE_CHECKING:
    from hyocr_core.models.fitting import ServingMemory
    from hyocr_core.models.serving_memory import ServedLoad

UNITS = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


@dataclass(frozen=True)
class Asked:
    """The options as they were given; None where they were not."""

    fits: str | None
    page_size: str | None
    pages_at_once: int | None
    answer_tokens: int | None

    def __bool__(self) -> bool:
        return self != Asked(None, None, None, None)

    @property
    def limit(self) -> int | None:
        """Bytes that there are; ConfigError for what is no size."""
        return bytes_of(self.fits)

    @property
    def load(self) -> ServedLoad:
        """What is to be served; ConfigError for a value that makes no sense."""
        # Imported here: --help must not wait for torch.
        from hyocr_core.models.serving_memory import ServedLoad

        given = {
            "page": None if self.page_size is None else _sides(self.page_size),
            "pages_at_once": self.pages_at_once,
            "answer_tokens": self.answer_tokens,
        }
        return parse_config(ServedLoad, {key: value for key, value in given.items() if value is not None}, "serving")


NAMES = "--fits, --page-size, --pages-at-once and --answer-tokens"


def serving_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options; the command gets them as `asked`."""

    @wraps(command)
    def gathered(*args: Any, **given: Any) -> Any:
        asked = Asked(*(given.pop(field.name) for field in fields(Asked)))
        return command(*args, asked=asked, **given)

    options = (
        click.option(
            "--fits", metavar="SIZE", help="Ask whether serving it fits into such a memory, as 8GB; 1 if not."
        ),
        click.option(
            "--page-size", metavar="WxH", help="Pixels of a page, for the memory.  [default: 2480x3508, A4 at 300 dpi]"
        ),
        click.option("--pages-at-once", type=int, help="Pages read together, for the memory.  [default: 8]"),
        click.option("--answer-tokens", type=int, help="Tokens of an answer, for the memory.  [default: 8192]"),
    )
    added: Callable[..., Any] = gathered
    for option in reversed(options):
        added = option(added)
    return added


def bytes_of(size: str | None, option: str = "--fits") -> int | None:
    """`8GB` as bytes: decimal units, or GiB and MiB. Raises ConfigError naming the option."""
    if size is None:
        return None
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMG]i?B)\s*", size, re.IGNORECASE)
    if match is None or not float(match[1]):
        raise ConfigError(f"{option}: {size!r} is no size; write a number and GB, GiB, MB or MiB, such as 8GB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def print_serving(memory: ServingMemory) -> None:
    """Table, assumptions and answers on stdout."""
    from hyocr_core.terminal.memory_table import memory_lines, memory_table

    say()
    print_table(memory_table(memory))
    for line in memory_lines(memory):
        say(line)


def _sides(text: str) -> tuple[int, int]:
    match = re.fullmatch(r"(\d+)x(\d+)", text)
    if match is None or not int(match[1]) or not int(match[2]):
        raise ConfigError(f"--page-size: {text!r} is no size; write width x height in pixels, such as 2480x3508")
    return int(match[1]), int(match[2])
