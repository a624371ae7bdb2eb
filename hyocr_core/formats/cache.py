"""Where the scales of an FP8 cache are stored: with the attention, not with the linear that `pack` gives them to.

vLLM finds them in either place. Transformers finds them only here, and takes random numbers otherwise when config.json
announces them. Imports no torch.
"""

from __future__ import annotations

CACHE_SCALES = {"k_proj": "k_scale", "v_proj": "v_scale"}
"""Last part of a linear's name -> local name of the scale of what the attention caches in its place."""


def stored_name(layer: str, local: str) -> str:
    """The checkpoint's name of a linear's tensor: `LAYER.local`, or `ATTENTION.local` for the scale of a cache."""
    attention, _, part = layer.rpartition(".")
    return f"{attention if CACHE_SCALES.get(part) == local else layer}.{local}"


def split_name(name: str) -> tuple[str, str]:
    """Return the linear, or whatever else has a tensor of this stored name, and the local name; see `stored_name`."""
    module, _, local = name.rpartition(".")
    for part, scale in CACHE_SCALES.items():
        if local == scale and not module.endswith(f".{part}"):
            return f"{module}.{part}", local
    return module, local
