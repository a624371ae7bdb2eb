"""What a bad disk does to files, by a seed."""

from __future__ import annotations

from pathlib import Path
from random import Random

BLOCK = 512


def damage_one(folder: Path, random: Random) -> Path | None:
    """Spoil one of the files below a folder; return which, None if there is none."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size)
    if not paths:
        return None
    path = random.choice(paths)
    content = bytearray(path.read_bytes())
    at = random.randrange(len(content))
    kind = random.choice(("flip", "zero", "cut"))
    if kind == "flip":
        content[at] ^= 1 << random.randrange(8)
    elif kind == "zero":
        content[at : at + BLOCK] = bytes(len(content[at : at + BLOCK]))
    else:
        del content[at:]
    path.write_bytes(content)
    return path
