"""How tests ask an endpoint for pages."""

from __future__ import annotations

import threading
from pathlib import Path

from click.testing import CliRunner, Result

from hyocr_core.cli.main import main
from tests.evaluation.endpoint import Reply, Server, completion

COUNT = 6
"""Pages in the folder of the fixture."""


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["eval", *map(str, arguments)])


def read(server: Server, folder: Path, *arguments: object, model: object = "ocr") -> Result:
    return run(model, "--backend", server.url, "--data", folder, "--keep-duplicates", "--json", *arguments)


def unwrapped(result: Result) -> str:
    """What was said, without the breaks of a terminal's lines."""
    return " ".join(result.stderr.split())


def error(result: Result) -> str:
    errors = [line for line in result.stderr.splitlines() if line.startswith("hyocr: error:")]
    assert len(errors) == 1, result.stderr
    return errors[0]


def answer_together(server: Server, count: int) -> None:
    """Answer only when so many pages are asked for at once."""
    together = threading.Barrier(count)

    def reply(page: int, _attempt: int) -> Reply:
        together.wait(20)
        return 200, completion(f"text {page}")

    server.reply = reply
