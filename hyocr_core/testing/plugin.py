"""The kit's fixtures, for a module or a topmost conftest that says `pytest_plugins = ["hyocr_core.testing.plugin"]`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from hyocr_core import Batch, Block


@pytest.fixture
def hyocr_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random checkpoint in the published layout, with processor and tokenizer: the whole pipeline runs on it."""
    from hyocr_core.testing.tiny import shared_checkpoint

    return shared_checkpoint(tmp_path_factory.getbasetemp())


@pytest.fixture
def hyocr_pages() -> str:
    """Pages to calibrate on, as `--calib` takes them: a few rendered ones, always the same."""
    from hyocr_core.testing.tiny import PAGES

    return PAGES


@pytest.fixture
def hyocr_block(hyocr_checkpoint: Path) -> Iterator[tuple[Block, list[Batch]]]:
    """A decoder block of the checkpoint, a test's own, and samples at its input."""
    from hyocr_core.testing.tiny import open_block

    with open_block(hyocr_checkpoint) as opened:
        yield opened
