"""Both published generations, in small, through the commands."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from hyocr_core.cli.main import main

METHODS: dict[str, Mapping[str, Any]] = {
    "rtn": {"group_size": 32},
    "gptq": {"group_size": 32},
    "awq": {"group_size": 32},
    "fp8": {},
}
READ = ("--data", "synthetic:2", "--max-new-tokens", "4", "--device", "cpu")


def hyocr(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def done(*arguments: str | Path) -> Result:
    """A command that ends well."""
    result = hyocr(*arguments)
    assert result.exit_code == 0, result.output
    return result


def quant(model: Path | str, output: Path, method: str, *arguments: str) -> Result:
    options = [f"-o{key}={value}" for key, value in METHODS[method].items()]
    folders = ("--model", model, "--output", output)
    return hyocr(
        "quant", "--method", method, *options, *folders, "--calib", "synthetic:3", "--device", "cpu", *arguments
    )
