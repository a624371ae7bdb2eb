"""The environment in which a checkout runs without having been installed: for machines that reach no network."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

REPO = Path(__file__).parents[1]


def checkout_environment(folder: Path, packages: Path) -> dict[str, str]:
    """Variables for a process that imports this checkout and finds its entry points, which are written to `folder`.

    packages: a folder of `pip install --target` with what the machine's Python lacks, and no more: it would win.
    """
    projects = [REPO, *sorted(path.parent for path in REPO.glob("plugins/*/pyproject.toml"))]
    for project in projects:
        _describe(tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))["project"], folder)
    sources = [REPO, *(project / "src" for project in projects[1:])]
    inherited = [os.environ["PYTHONPATH"]] if os.environ.get("PYTHONPATH") else []
    path = os.pathsep.join([*map(str, (folder, *sources)), *inherited, str(packages)])
    return {**os.environ, "PYTHONPATH": path, "TOKENIZERS_PARALLELISM": "false", "HF_HUB_OFFLINE": "1"}


def _describe(project: Mapping[str, Any], folder: Path) -> None:
    """Write the .dist-info of a distribution, as pip lays it out."""
    name, version = str(project["name"]), str(project.get("version", "0.1.0"))
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n", encoding="utf-8")
    groups = project.get("entry-points", {})
    lines = [
        line
        for group, points in groups.items()
        for line in (f"[{group}]", *(f"{point} = {value}" for point, value in points.items()))
    ]
    (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
