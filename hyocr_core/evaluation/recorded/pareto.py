"""Which of several choices are worth having."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(costs: Sequence[Sequence[float]]) -> list[int]:
    """Indices of the choices that no other beats, in their order.

    costs: one row per choice, such as (bytes, CER); smaller is better, NaN is not allowed. A choice is beaten by one
    that is nowhere worse and somewhere better; of equal ones all stay.
    """
    return [index for index, mine in enumerate(costs) if not any(_beats(other, mine) for other in costs)]


def _beats(other: Sequence[float], mine: Sequence[float]) -> bool:
    pairs = list(zip(other, mine, strict=True))
    return all(theirs <= own for theirs, own in pairs) and any(theirs < own for theirs, own in pairs)
