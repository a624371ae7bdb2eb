"""The ways in which Unicode writes one name."""

from __future__ import annotations

import unicodedata


def spellings(name: str) -> list[str]:
    """A name as it is, and with its letters and their accents together or apart, as macOS keeps them."""
    return [name, unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)]
