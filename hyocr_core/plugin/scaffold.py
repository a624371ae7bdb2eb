"""A new method as a complete distribution, made from `plugin/template`. Imports no torch."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path, PurePosixPath

from hyocr_core._version import __version__
from hyocr_core.contract.types import API_VERSION
from hyocr_core.errors import BadInputError, OutputError
from hyocr_core.plugin.registry import installed_methods

SUFFIX = ".j2"
PACKAGE = "PACKAGE"
"""In the template's paths, the place of the package's name."""

_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")


def distribution_name(method: str) -> str:
    """What the distribution of a method is called."""
    return f"hyocr-plugin-{method}"


def write_plugin(method: str, folder: Path) -> list[Path]:
    """Write the distribution of a method called `method` into `folder`; return its files, sorted.

    Raises BadInputError for a name that cannot be one or that an installed plugin has, OutputError for a folder that
    is not empty or cannot be written.
    """
    if not _NAME.fullmatch(method):
        raise BadInputError(f"{method!r} cannot be a method's name: use a-z, 0-9 and single hyphens, such as my-method")
    taken = [entry for entry in installed_methods() if entry.name == method]
    if taken:
        raise BadInputError(f"{taken[0].distribution} offers a method {method} already; choose another name")
    words = _words(method)
    written = []
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise OutputError(f"{folder} is there and not empty: give a new folder with --output")
        for name, text in _templates():
            path = folder / name.replace(PACKAGE, words["package"])
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(_render(text, words), encoding="utf-8")
            written.append(path)
    except OSError as error:
        raise OutputError(f"cannot write {folder}: {error.strerror}") from error
    return sorted(written)


def _words(method: str) -> dict[str, str]:
    """What the template's variables stand for."""
    major, minor = __version__.split(".")[:2]
    return {
        "method": method,
        "distribution": distribution_name(method),
        "package": distribution_name(method).replace("-", "_"),
        "config_class": "".join(part.capitalize() for part in method.split("-")) + "Config",
        "summary": f"The quantization method {method} for hyocr",
        "api_version": str(API_VERSION),
        "core_versions": f">={major}.{minor},<{major}.{int(minor) + 1}",
    }


def _templates() -> Iterator[tuple[str, str]]:
    """Path without the suffix, with slashes, and text of every file of the template."""
    root = files("hyocr_core.plugin") / "template"
    pending: list[tuple[PurePosixPath, Traversable]] = [(PurePosixPath(), root)]
    while pending:
        path, entry = pending.pop()
        if entry.is_dir():
            pending += ((path / child.name, child) for child in entry.iterdir())
        elif entry.name.endswith(SUFFIX):
            yield str(path).removesuffix(SUFFIX), entry.read_text(encoding="utf-8")


def _render(text: str, words: dict[str, str]) -> str:
    # Imported here: only this command needs it.
    from jinja2 import Environment, StrictUndefined

    # Python and TOML, not HTML: escaping would spoil them.
    environment = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701
    return environment.from_string(text).render(words)
