"""Progress of a run on the terminal: phase, block, layer or sample, elapsed, left, memory."""

from __future__ import annotations

from contextlib import ExitStack
from types import TracebackType

import psutil
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    SpinnerColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from hyocr_core.progress import watched
from hyocr_core.resources import size
from hyocr_core.shown import message

LABELS = {"check": "check weights", "vision": "vision tower", "blocks": "decoder blocks", "write": "write checkpoint"}


class MemoryColumn(ProgressColumn):
    """Resident memory of this process."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        del task
        return Text(size(psutil.Process().memory_info().rss), style="dim")


class TerminalProgress:
    """Bars on a terminal; elsewhere one line per phase, so that a log stays readable."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            SpinnerColumn(),
            TextColumn("{task.description:<16}", markup=False),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            MemoryColumn(),
            TextColumn("{task.fields[detail]}", style="dim", markup=False),
            console=console,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None
        self._doing: TaskID | None = None
        self._watching = ExitStack()

    def close(self) -> None:
        """Draw no more."""
        self._watching.close()
        self._bars.stop()

    def leave(self) -> None:
        """Draw no more, and leave nothing of what was drawn."""
        for task in self._bars.task_ids:
            self._bars.update(task, visible=False)
        self.close()

    def __enter__(self) -> TerminalProgress:
        self._watching.enter_context(watched(self))
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def doing(self, text: str) -> None:
        """What is done where no phase is, without a bar."""
        if self._doing is None:
            self._doing = self._bars.add_task("", total=None, detail="")
        self._bars.update(self._doing, description=message(text))

    def clear(self) -> None:
        """Take it away again."""
        if self._doing is not None:
            self._bars.remove_task(self._doing)
            self._doing = None

    def start(self, phase: str, total: int) -> None:
        self.clear()
        label = LABELS.get(phase, phase)
        if self._task is not None:
            self._bars.update(self._task, detail="")
        self._task = self._bars.add_task(label, total=total, detail="")
        if not self._console.is_terminal:
            self._console.print(f"{label}: {total}")

    def step(self, detail: str = "") -> None:
        if self._task is not None:
            self._bars.update(self._task, advance=1, detail=message(detail))

    def detail(self, text: str) -> None:
        if self._task is not None:
            self._bars.update(self._task, detail=message(text))

    def say(self, text: str) -> None:
        self._console.print(message(text))
