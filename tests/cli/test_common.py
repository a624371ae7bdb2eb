"""What the commands print on stderr."""

from __future__ import annotations

import pytest

from hyocr_core.cli.common import stderr_console
from hyocr_core.terminal.progress_bar import TerminalProgress


def test_names_are_printed_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    with TerminalProgress(stderr_console()) as progress:
        progress.say("skipped data:train:0: [bold] is no image")
    assert "skipped data:train:0: [bold] is no image" in capsys.readouterr().err
