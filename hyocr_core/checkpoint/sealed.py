"""JSON that carries a digest of itself: what one process keeps for another, which is to see when it was damaged.

Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hyocr_core.outside.json_text import parse_json


def seal(content: Any) -> bytes:
    """Write what JSON can hold, beside its SHA-256."""
    # Without indentation: a journal is written again after every page, and Python indents five times as slowly.
    return (json.dumps({"sha256": _digest(content), "content": content}) + "\n").encode()


def unseal(data: bytes) -> Any:
    """Return what was sealed. Raises ValueError when anything of it has changed, or it never was sealed."""
    try:
        sealed = parse_json(data)
        content, digest = sealed["content"], sealed["sha256"]
        sound = digest == _digest(content)
    except (ValueError, TypeError, LookupError) as error:
        raise ValueError("not what was written") from error
    if not sound:
        raise ValueError("not what was written: its digest is another")
    return content


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True, separators=(",", ":")).encode()).hexdigest()
