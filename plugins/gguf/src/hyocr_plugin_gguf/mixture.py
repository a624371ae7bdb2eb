"""In which blocks llama.cpp's mixture q4_k_m stores some linears in 6 bits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

_WANTED = re.compile(r"model\.(?:language_model\.)?layers\.(\d+)\.(?:self_attn\.[qkv]_proj|mlp\.down_proj)")


def of_more_bits(names: Iterable[str]) -> Iterator[str]:
    """Yield what shares an input with v, and down, of those blocks; names: of the decoder, on disk or in memory.

    They are the first and the last eighth of the blocks, and every third between.
    """
    found = {name: int(match[1]) for name in names if (match := _WANTED.fullmatch(name))}
    count = max(found.values(), default=-1) + 1
    for name, index in found.items():
        if index < count // 8 or index >= 7 * count // 8 or (index - count // 8) % 3 == 2:
            yield name
