"""Runs blocks of documentation in this process, as `python run_blocks.py FILE` with a list of jobs in JSON.

A job is {"folder", "blocks"}, a block {"command": [...]} or {"python": "..."}. Prints for each job what went wrong, or
null. One process for all of them, because torch and transformers take seconds to import.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
import traceback
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from hyocr_core.cli.main import main as hyocr


def run_job(blocks: list[dict[str, Any]]) -> str | None:
    """Run blocks in order, up to the first that fails; the Python blocks of a page share their names."""
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks:
        problem = _run_command(block["command"]) if "command" in block else _run_python(block["python"], names)
        if problem is not None:
            return problem
    return None


def _run_command(command: list[str]) -> str | None:
    result = CliRunner().invoke(hyocr, command[1:])
    if result.exit_code == 0:
        return None
    crash = "".join(traceback.format_exception(result.exception)) if result.exc_info else ""
    return f"{shlex.join(command)}\nexit {result.exit_code}\n{result.output}\n{crash}"


def _run_python(source: str, names: dict[str, Any]) -> str | None:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(source, "block", "exec"), names)  # noqa: S102 - what our own documentation says
    except BaseException:
        return f"{source}\n{traceback.format_exc()}"
    return None


def main(file: Path) -> None:
    """Run all jobs, each in its folder."""
    problems = []
    for job in json.loads(file.read_text(encoding="utf-8")):
        os.chdir(job["folder"])
        problems.append(run_job(job["blocks"]))
    file.write_text(json.dumps(problems), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
