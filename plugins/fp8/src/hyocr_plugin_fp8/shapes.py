"""Which layers FP8 can hold, decided before any weight is read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from hyocr_core import ConfigError

if TYPE_CHECKING:
    from hyocr_plugin_fp8.config import Fp8Config

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


def check_cache(ignored: Iterable[str], layers: Mapping[str, Fp8Config]) -> None:
    """Raise ConfigError when some of k_proj and v_proj of the decoder are to have scales of the cache and some not.

    ignored: linears that are not quantized. layers: those that are, with their options. The cache of all blocks is FP8
    or that of none, and runtimes would take any number for a missing scale.
    """
    wanting = {name: layers[name].kv_cache for name in layers if CACHED.fullmatch(name)}
    if not any(config.kv_cache for config in layers.values()):
        return
    for name in (*(name for name in ignored if CACHED.fullmatch(name)), *wanting):
        if not wanting.get(name, False):
            raise ConfigError(
                f"{name}: kv_cache: true needs the scale of its cache, which is stored with this layer, but `ignore` "
                "leaves it out; quantize it, or set kv_cache: false"
                if name not in wanting
                else f"{name}: kv_cache is false in `overrides`, but the cache is FP8 in all layers or in none"
            )
