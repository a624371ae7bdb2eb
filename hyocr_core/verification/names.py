"""Checks of names, shapes and dtypes alone: what is there, what is missing, what runtimes would take it for."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch

from hyocr_core.formats import CACHE_SCALES, StoredFormats
from hyocr_core.formats.ignored import TRANSFORMERS, VLLM
from hyocr_core.models.spelling import published_name
from hyocr_core.verification.faults import Fault
from hyocr_core.verification.subject import Linear, Subject


def check_known(subject: Subject) -> Iterator[Fault]:
    """Every tensor belongs to the architecture or to the format, once."""
    for name in subject.unknown:
        yield Fault(name, f"is no tensor of the architecture ({subject.reader.tensors[name].shard})")
    for name in subject.twice:
        yield Fault(name, "is there twice, once under its on-disk and once under its in-memory name")


def check_carried(subject: Subject) -> Iterator[Fault]:
    """Every parameter that is no linear's weight is there in its shape."""
    weights = {f"{linear.memory}.weight" for linear in subject.linears.values()}
    for memory, shape in subject.model.parameters.items():
        if memory in subject.others:
            name = subject.others[memory]
            info = subject.reader.tensors[name]
            if info.shape != shape:
                yield Fault(name, f"has shape {list(info.shape)}, config.json asks for {list(shape)}")
            if not info.dtype.is_floating_point:
                yield Fault(name, f"is {info.dtype}, not a floating-point tensor")
        elif memory not in weights and memory not in subject.model.ties:
            yield Fault(published_name(memory), "is missing")


def check_linears(subject: Subject) -> Iterator[Fault]:
    """Every linear is quantized with all its tensors, or has a plain weight, and not both."""
    for name, linear in subject.linears.items():
        if linear.quantized:
            for problem in subject.problems[name]:
                yield Fault(linear.name, problem)
            if linear.plain is not None:
                yield Fault(linear.name, f"is quantized and has a plain weight too, {linear.plain}")
        elif linear.plain is None:
            yield Fault(linear.name, "is missing: it is neither quantized nor there as a plain weight")
        else:
            yield from _check_plain(subject, linear, linear.plain)


def check_ignored(subject: Subject) -> Iterator[Fault]:
    """The list of ignored linears names every unquantized one so that both runtimes match it, and no quantized one."""
    ignored = subject.ignored
    if not ignored.key:
        return
    # Without a list vLLM sees in the shards what is quantized; Transformers does not look.
    readers = {TRANSFORMERS} if ignored.entries is None else {VLLM, TRANSFORMERS}
    for linear in subject.linears.values():
        left_out = ignored.by(linear.memory) & readers
        if linear.quantized and left_out:
            yield Fault(linear.name, f"is quantized, but {ignored.key} in config.json leaves it out")
        elif not linear.quantized and linear.format is not None and left_out != readers:
            yield _not_left_out(ignored.key, linear.name, linear.memory, readers - left_out)
    # A tied head has no tensors; in `awq` both runtimes leave it alone of themselves.
    if "lm_head" not in subject.linears and ignored.rule != "substring":
        left_out = ignored.by("lm_head") & readers
        if left_out != readers:
            yield _not_left_out(ignored.key, "lm_head", "lm_head", readers - left_out)


def check_fused(subject: Subject) -> Iterator[Fault]:
    """Linears that runtimes fuse are all quantized, in one format, or none."""
    for group in subject.fused():
        if any(linear.format is not None and not linear.format.fused for linear in group):
            continue
        plain = [linear for linear in group if not linear.quantized]
        if plain and len(plain) < len(group):
            rest = ", ".join(linear.name.rpartition(".")[2] for linear in group if linear.quantized)
            yield Fault(plain[0].name, f"is not quantized, but {rest} is: runtimes fuse them into one weight")
        elif not plain and len({linear.format for linear in group}) > 1:
            stored = ", ".join(f"{linear.name.rpartition('.')[2]} {_in_words(linear)}" for linear in group)
            yield Fault(group[0].name, f"is stored otherwise than what runtimes fuse with it: {stored}")


def check_cache(subject: Subject) -> Iterator[Fault]:
    """Static scales of the cache are there for every layer, or for none."""
    cached = [linear for linear, _ in subject.cached()]
    if subject.config.get("kv_cache_scheme") or any(linear.cache_scale for linear in cached):
        for linear in cached:
            local = CACHE_SCALES[linear.memory.rpartition(".")[2]]
            if linear.cache_scale is None:
                yield Fault(linear.name, f"has no {local}: runtimes would take any number for it")
            elif math.prod(subject.reader.tensors[linear.cache_scale].shape) != 1:
                shape = list(subject.reader.tensors[linear.cache_scale].shape)
                yield Fault(linear.cache_scale, f"has shape {shape}, not [1]")


def check_targets(subject: Subject) -> Iterator[Fault]:
    """What config.json says of single layers, it says by the names that both runtimes ask for."""
    if not isinstance(subject.stored, StoredFormats):
        return
    for linear in subject.quantized.values():
        if subject.stored.of_names((linear.memory,)) != linear.format:
            yield Fault(
                linear.name,
                f"config.json does not name it as {linear.memory} where it says how it is stored: Transformers would "
                "take it for something else",
            )


def _in_words(linear: Linear) -> str:
    return "nowhere" if linear.format is None else linear.format.in_words


def _check_plain(subject: Subject, linear: Linear, name: str) -> Iterator[Fault]:
    info = subject.reader.tensors[name]
    if info.shape != linear.shape:
        yield Fault(name, f"has shape {list(info.shape)}, config.json asks for {list(linear.shape)}")
    if info.dtype not in (torch.bfloat16, torch.float16, torch.float32):
        yield Fault(name, f"is {info.dtype}: neither a plain weight nor what {subject.quant_method} stores")


def _not_left_out(key: str, name: str, memory: str, readers: set[str]) -> Fault:
    who = " and ".join(sorted(readers, reverse=True))
    return Fault(
        name, f"is not quantized, but {key} in config.json does not name it as {memory}: {who} would look for its codes"
    )
