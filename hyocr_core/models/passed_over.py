"""Tensors on disk that are no weights."""

from __future__ import annotations

from collections.abc import Iterator

from hyocr_core.models.hunyuan_vl import HunYuanVL


def passed_over(model: HunYuanVL) -> Iterator[str]:
    """A line for the user about buffers that a checkpoint holds although runtimes compute them; none without any."""
    if model.computed:
        first, *others = model.computed
        more = f" and {len(others)} more tensors are" if others else " is"
        yield f"{first}{more} no weight, runtimes compute it themselves: ignored"
