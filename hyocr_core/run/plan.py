"""Which linears a run quantizes, decided from names and shapes alone, before any weight is read."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from hyocr_core.contract.types import QuantizedNames
from hyocr_core.errors import ConfigError
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.settings.recipe import matches


@dataclass(frozen=True)
class Plan:
    """On-disk module names; `quantized` maps to (out_features, in_features), in model order."""

    quantized: Mapping[str, tuple[int, int]]
    ignored: tuple[str, ...]
    names: QuantizedNames


def make_plan(
    model: HunYuanVL,
    ignore: Iterable[str],
    *,
    keep_ends: int = 0,
    quant_vit: bool = False,
    misread: Collection[str] = (),
) -> Plan:
    """Every linear of the decoder, and of the vision tower on request, but those that `ignore` matches.

    keep_ends: how many decoder blocks at either end to leave out as well. misread: in-memory names of linears to leave
    out as well, if they are there.
    Raises ConfigError when a pattern matches nothing or splits a group that runtimes fuse.
    """
    ignored = _matched(model.memory_names, ignore)
    blocks = len(model.decoder_blocks)
    inner = model.decoder_blocks[keep_ends : max(blocks - keep_ends, 0)]
    if not inner:
        raise ConfigError(f"keep_ends: {keep_ends} at either end leave none of the decoder's {blocks} blocks")
    places = (*(model.vision_blocks if quant_vit else ()), *inner)
    for place in places:
        for group in model.groups(place) if place.wiring.fused else ():
            _check_whole(group, ignored)
    names = [name for place in places for group in model.groups(place) for name in group]
    memory = model.memory_names
    return plan_of(model, [name for name in names if name not in ignored and memory[name] not in misread])


def plan_of(model: HunYuanVL, names: Collection[str]) -> Plan:
    """The plan that quantizes these linears; raises ConfigError when there are none."""
    quantized = {name: model.linears[name] for name in names}
    if not quantized:
        raise ConfigError("ignore: no layer is left to quantize")
    memory = model.memory_names
    rest = tuple(name for name in memory if name not in quantized)
    return Plan(quantized, rest, QuantizedNames(tuple(memory[n] for n in quantized), tuple(memory[n] for n in rest)))


def _check_whole(group: tuple[str, ...], ignored: set[str]) -> None:
    kept = [name for name in group if name not in ignored]
    if kept and len(kept) < len(group):
        raise ConfigError(
            f"ignore: {', '.join(sorted(ignored & set(group)))} must be ignored together with {', '.join(kept)}: "
            "runtimes fuse them into one weight"
        )


def _matched(memory_names: Mapping[str, str], patterns: Iterable[str]) -> set[str]:
    """On-disk names that a pattern matches by either of their names, whole or as a parent module."""
    matched: set[str] = set()
    for pattern in patterns:
        hits = {disk for disk, memory in memory_names.items() if ignored_by([pattern], disk, memory)}
        if not hits:
            raise ConfigError(
                f"ignore: {pattern!r} matches no linear layer; names look like {next(iter(memory_names))}"
            )
        matched |= hits
    return matched


def ignored_by(patterns: Iterable[str], *names: str) -> str | None:
    """The first pattern that matches one of the names, whole or as a parent module."""
    return next((pattern for pattern in patterns if any(matches(pattern, name) for name in names)), None)
