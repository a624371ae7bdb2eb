"""The console on which everything is printed that rich lays out."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from hyocr_core.shown import message, visible


class PlainConsole(Console):
    """A console on which text is text: none of it is markup, and none of it steers the terminal."""

    def __init__(self, **options: Any) -> None:
        # Without emoji: the split in `data:train:0` is no train.
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """A cell, or a line."""
        return super().render_str(message(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """What comes of text in any form; only what rich itself says to the terminal passes as it is."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
