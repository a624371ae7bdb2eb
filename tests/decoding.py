"""How tests let models write."""

from __future__ import annotations

from typing import Any

from hyocr_core.contract.decoding import Decoding


def decoding(**changes: Any) -> Decoding:
    """No penalty, no look for loops, tokens 260 and 261 end an answer, unless said otherwise."""
    usual = {"repetition_penalty": 1.0, "max_new_tokens": 12, "stop_loops": False, "stop_token_ids": (260, 261)}
    return Decoding(**(usual | changes))
