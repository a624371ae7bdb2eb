"""The text of an answer while its tokens arrive."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

from torch import Tensor
from transformers.generation.streamers import BaseStreamer

Decode: TypeAlias = Callable[[Sequence[int]], str]
"""Makes text of tokens, without special ones."""

_BROKEN = "\ufffd"
"""What a decoder makes of a character whose last bytes are missing; at most three tokens wait for them."""
_WAITING = 3


class ArrivingText:
    """Makes text of tokens as they come. Every token is decoded once, or a few times."""

    def __init__(self, decode: Decode) -> None:
        self._decode = decode
        self._waiting: list[int] = []

    def add(self, tokens: Sequence[int]) -> str:
        """The text that is whole with these tokens, but for those that hold the beginning of a character only."""
        self._waiting += tokens
        count = len(self._waiting)
        for end in range(count, max(count - _WAITING - 1, -1), -1):
            text = self._decode(self._waiting[:end])
            if not text.endswith(_BROKEN):
                self._waiting = self._waiting[end:]
                return text
        return self.rest()

    def rest(self) -> str:
        """What no further token makes whole."""
        text, self._waiting = self._decode(self._waiting), []
        return text


class Told(BaseStreamer):
    """Hands the text of one answer on while Transformers generates it."""

    def __init__(self, decode: Decode, told: Callable[[str], None]) -> None:
        self._text = ArrivingText(decode)
        self._told = told
        self._prompt = True

    def put(self, value: Tensor) -> None:
        """Tokens, (1, T): first the prompt, then what is written."""
        if self._prompt:
            self._prompt = False
        elif text := self._text.add(value.flatten().tolist()):
            self._told(text)

    def end(self) -> None:
        if text := self._text.rest():
            self._told(text)
