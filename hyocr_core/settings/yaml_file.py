"""YAML that a user wrote, as a file or as the value of a flag."""

from __future__ import annotations

import io
import unicodedata
from pathlib import Path
from typing import Any

from hyocr_core.contract.config import show
from hyocr_core.errors import ConfigError, one_line
from hyocr_core.outside.aliases import check_aliases
from hyocr_core.outside.json_text import levels
from hyocr_core.outside.regular import read_text

_MOST_BYTES = 1 << 20
"""Of a YAML file: reading one takes a second."""


def read_yaml(path: Path) -> Any:
    """Read a YAML file; raises ConfigError with the line for bad syntax, duplicate keys and tags."""
    try:
        text = read_text(path, most=_MOST_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path}: cannot be read: {reason}") from error
    return parse_yaml(text, str(path))


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML text; raises ConfigError with the line for bad syntax, duplicate keys and tags."""
    # Imported here because `hyocr quant --help` needs no YAML and should come at once.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError

    try:
        check_aliases(text)
        value = YAML(typ="safe", pure=True).load(io.StringIO(text))
        _check_texts(value)
        return value
    except MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        problem = _first_line(error.problem or "")
        hint = "; quote a value that begins with *" if "undefined alias" in problem else ""
        raise ConfigError(f"{where}: line {line}: {problem}{hint}") from error
    except Exception as error:  # what the library raises on odd YAML is no closed set
        reason = "nested too deeply" if isinstance(error, RecursionError) else _first_line(one_line(error))
        raise ConfigError(f"{where}: is not valid YAML: {reason}") from error


def _check_texts(value: Any) -> None:
    """Raise ValueError for what no path, name or prompt can hold, and for a value that is nested too deeply."""
    for level in levels(value):
        for text in level:
            if isinstance(text, str) and any(mark == "\0" or unicodedata.category(mark) == "Cs" for mark in text):
                raise ValueError(f"{show(text)} holds a character that no text can hold")


def _first_line(text: str) -> str:
    return text.strip().partition("\n")[0]
