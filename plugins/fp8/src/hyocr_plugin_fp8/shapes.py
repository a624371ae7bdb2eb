"""Which layers FP8 can hold, decided before any weight is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from hyocr_core import ConfigError

MULTIPLE = 16
"""FP8 matrix units of GPUs take no other widths; torch's matmul refuses them."""

CACHED = re.compile(r"model\.language_model\.layers\.\d+\.self_attn\.[kv]_proj")


def check_multiples(shapes: Mapping[str, tuple[int, int]]) -> None:
    """Raise ConfigError for the first layer, name -> (N, K), with a width that is no multiple of 16."""
    for name, (outputs, inputs) in shapes.items():
        if outputs % MULTIPLE or inputs % MULTIPLE:
            raise ConfigError(
                f"{name}: its {inputs} input and {outputs} output channels are not both multiples of {MULTIPLE}, "
                "which FP8 kernels need; leave the layer out with `ignore`"
            )


def check_cache(ignored: Iterable[str]) -> None:
    """Raise ConfigError when k_proj or v_proj of a decoder block is among the layers not to quantize.

    The cache of all blocks is FP8 or that of none, and runtimes would take any number for a missing scale.
    """
    for name in ignored:
        if CACHED.fullmatch(name):
            raise ConfigError(
                f"{name}: kv_cache: true needs the scale of its cache, which is stored with this layer, but `ignore` "
                "leaves it out; quantize it, or set kv_cache: false"
            )
