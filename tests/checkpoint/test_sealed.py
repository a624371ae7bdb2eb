"""JSON that is noticed to be damaged."""

from __future__ import annotations

import json
from typing import Any

import pytest

from hyocr_core.checkpoint.sealed import seal, unseal

CONTENT: dict[str, Any] = {
    "text": "漢字 é\n",
    "numbers": [0.1 + 0.2, 1e-300, -3],
    "nothing": None,
    "deep": {"yes": True},
}


@pytest.mark.parametrize("content", [CONTENT, [], "text", None, 1.5])
def test_it_comes_back_as_it_was(content: Any) -> None:
    assert unseal(seal(content)) == content
    assert seal(content) == seal(unseal(seal(content)))


def test_every_flipped_bit_is_noticed() -> None:
    """Or makes no difference, as one in a line break between two keys does."""
    good = seal(CONTENT)
    noticed = 0
    for place in range(8 * len(good)):
        damaged = bytearray(good)
        damaged[place // 8] ^= 1 << place % 8
        try:
            assert unseal(bytes(damaged)) == CONTENT
        except ValueError:
            noticed += 1
    assert noticed > 0.9 * 8 * len(good)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"null", b"\xff", b'{"content": 1}', b"[" * 100_000, b'"sha256"'])
def test_what_never_was_sealed(data: bytes) -> None:
    with pytest.raises(ValueError, match="not what was written"):
        unseal(data)


def test_it_can_be_read_by_people() -> None:
    assert json.loads(seal(CONTENT))["content"] == CONTENT
