"""Statistics of several sets of samples made one, and without their rules of merging."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from hyocr_core.contract.types import Batches, Collected, Stat, Stats

if TYPE_CHECKING:
    from torch import Tensor


def merge(left: Mapping[str, Collected], right: Mapping[str, Collected]) -> dict[str, Collected]:
    """Return the statistics of both sets of samples, each by layer name; layers that share an object still do.

    Raises ValueError naming a layer and a statistic that only one of them has, or that they merge differently.
    """
    known: dict[tuple[int, int], Collected] = {}
    merged = {}
    for name in left.keys() | right.keys():
        if name not in left or name not in right:
            raise ValueError(f"{name}: only one of two sets of samples has statistics of it")
        pair = id(left[name]), id(right[name])
        if pair not in known:
            known[pair] = _merged(name, left[name], right[name])
        merged[name] = known[pair]
    return {name: merged[name] for name in left}


def values_of(collected: Mapping[str, Collected]) -> dict[str, Stats]:
    """The tensors alone, by layer name; layers that share an object still do."""
    known: dict[int, Stats] = {}
    for stats in collected.values():
        known.setdefault(id(stats), {name: stat.value for name, stat in stats.items()})
    return {name: known[id(stats)] for name, stats in collected.items()}


def total(batches: Batches, values: Tensor) -> Tensor:
    """The sum of what `settle` has measured on its batches, over those of all processes of the run; in one: `values`.

    All processes must call it in the same order, with a tensor of the same shape and dtype.
    """
    add = getattr(batches, "total", None)
    return values if add is None else add(values)


def _merged(layer: str, left: Collected, right: Collected) -> Collected:
    if left.keys() != right.keys():
        raise ValueError(f"{layer}: {sorted(left.keys() ^ right.keys())[0]} is in one of two sets of samples only")
    found = {}
    for name, stat in left.items():
        other = right[name]
        if other.merge != stat.merge or other.value.shape != stat.value.shape:
            raise ValueError(f"{layer}: {name} is another statistic in each of two sets of samples")
        found[name] = Stat(_merge(stat.value, other.value.to(stat.value.device), stat.merge), stat.merge)
    return found


def _merge(left: Tensor, right: Tensor, rule: str) -> Tensor:
    return left + right if rule == "sum" else torch.maximum(left, right)
