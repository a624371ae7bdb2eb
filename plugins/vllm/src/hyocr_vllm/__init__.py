"""A vLLM plugin: HunyuanOCR's forward as the model's own code has it, and each page its own features."""

from __future__ import annotations

import logging
import os

__version__ = "0.1.0"

SWITCH = "HYOCR_VLLM_FORWARD"
"""Environment variable; `transformers` leaves everything as it is."""

_log = logging.getLogger("vllm.hyocr")


def register() -> None:
    """What vLLM calls in each of its processes, possibly more than once, before it makes a model."""
    if os.environ.get(SWITCH, "reference") == "transformers":
        _log.info("hyocr: HunyuanOCR's forward is left to Transformers (%s)", SWITCH)
        return
    from hyocr_core.pages.older_transformers import recompose_in_rotary
    from hyocr_core.runtimes.forward import override_everywhere
    from hyocr_vllm.pages import split_pages

    recompose_in_rotary()
    split_pages()
    forward = override_everywhere()
    if forward == "reference":
        _log.info("hyocr: HunyuanOCR computes the forward of its authors' code")
    else:
        _log.warning("hyocr: this Transformers computes HunyuanOCR's forward in a way unknown to hyocr; left as it is")
