"""How much disk a run needs, asked before it starts."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.writer import existing_folder, stage_folder
from hyocr_core.errors import OutputError
from hyocr_core.outside.home import expanded
from hyocr_core.resources import size

_MARGIN_BYTES = 16 * 2**20


def required_disk(reader: CheckpointReader, quantized: Iterable[str], packed_bytes: int) -> int:
    """Return the bytes that a run has on disk next to its target just before it is done.

    quantized: on-disk names of the tensors that are replaced. packed_bytes: size of what replaces them, which is
    there twice for a moment: as parts and in the final files.
    """
    replaced = set(quantized)
    carried = sum(info.nbytes for name, info in reader.tensors.items() if name not in replaced)
    side = sum(path.stat().st_size for path in reader.side_files())
    return carried + 2 * packed_bytes + side + _MARGIN_BYTES


def check_disk(target: Path, needed_bytes: int) -> None:
    """Raise OutputError when the disk of `target` cannot take `needed_bytes` less what a stage already holds."""
    target = expanded(target).resolve()
    held = sum(path.stat().st_size for path in stage_folder(target).rglob("*") if path.is_file())
    folder = existing_folder(target)
    free = free_disk(target)
    if needed_bytes - held > free:
        raise OutputError(
            f"{folder}: the run needs {size(needed_bytes - held)} of disk, {size(free)} are free: free some, or "
            "choose another output"
        )


def free_disk(target: Path) -> int:
    """Return the free bytes of the disk that `target` is or would be on."""
    return shutil.disk_usage(existing_folder(expanded(target).resolve())).free
