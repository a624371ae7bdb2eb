"""The caches, and the disks they are on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from hyocr_core.doctor.findings import Cache, Problem
from hyocr_core.evaluation.reading.kept import default_state
from hyocr_core.resources import GB, size

HUB, OWN = "Hugging Face hub", "hyocr"
MODEL_BYTES = 2 * GB
"""The size of HunyuanOCR on the hub."""


def find_caches() -> list[Cache]:
    """The hub's cache of models, and hyocr's of evaluations and answers."""
    from huggingface_hub.constants import HF_HUB_CACHE

    return [_cache(HUB, Path(HF_HUB_CACHE), parts=False), _cache(OWN, default_state().parent, parts=True)]


def check_caches(caches: list[Cache]) -> Iterator[Problem]:
    """Say which cannot be written, or will soon be full."""
    for cache in caches:
        variable = "HF_HUB_CACHE" if cache.name == HUB else "XDG_CACHE_HOME"
        if not cache.writable:
            advice = f"{cache.folder} cannot be written: give yourself the right, or set {variable} to another folder"
            yield Problem(broken=True, about=f"cache of {cache.name}", advice=advice)
        elif cache.free_bytes < MODEL_BYTES:
            mend = "hf cache prune" if cache.name == HUB else "delete what you do not need"
            advice = (
                f"the disk of {cache.folder} has {size(cache.free_bytes)} left, HunyuanOCR alone takes "
                f"{size(MODEL_BYTES)}: {mend}, or set {variable} to a folder on another disk"
            )
            yield Problem(broken=False, about=f"cache of {cache.name}", advice=advice)


def _cache(name: str, folder: Path, *, parts: bool) -> Cache:
    there = next(path for path in (folder, *folder.parents) if path.is_dir())
    inside = (
        {path.name: _size(path) for path in sorted(folder.iterdir()) if path.is_dir()}
        if parts and there == folder
        else {}
    )
    return Cache(
        name=name,
        folder=str(folder),
        used_bytes=_size(folder),
        parts=inside,
        free_bytes=shutil.disk_usage(there).free,
        writable=os.access(there, os.W_OK | os.X_OK),
    )


def _size(folder: Path) -> int:
    """Bytes of the files below a folder; a link counts nothing, and what cannot be read or vanishes is left out."""
    total = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            path = Path(parent, name)
            try:
                total += 0 if path.is_symlink() else path.stat().st_size
            except OSError:
                continue
    return total
