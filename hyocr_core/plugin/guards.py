"""What a hook must leave alone while it is at work: each guard raises PromiseBroken when it did not."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from hyocr_core.contract.types import Batch, Batches, Block, Layer, Stats
from hyocr_core.errors import HookError, HyocrError, MethodError
from hyocr_core.plugin.results import first_changed

RESCALED_CHANGE = 0.02
"""How much rescaling may change a block's output, relative; rounding folded weights to bf16 takes a few thousandths."""

TRIED_TOKENS = 128
"""Of a sample, that a block is tried on before and after rescaling, which keeps the output of any input."""


class PromiseBroken(Exception):  # noqa: N818
    """A hook did what it must not; `kind` is the error that the user sees, `layer` whose it is, if not the hook's."""

    def __init__(self, problem: str, *, layer: str = "", kind: type[HyocrError] = HookError) -> None:
        super().__init__(problem)
        self.layer = layer
        self.kind = kind


@contextmanager
def parameters_kept(block: Block, why: str) -> Iterator[None]:
    """The block's parameters; the copies are one block's weights."""
    copies = {name: parameter.detach().clone() for name, parameter in block.module.named_parameters()}
    yield
    changed = first_changed([(now.detach(), copies[name]) for name, now in block.module.named_parameters()])
    if changed is not None:
        raise PromiseBroken(f"changed {list(copies)[changed]}, but {why}")


@contextmanager
def output_kept(block: Block, batches: Batches) -> Iterator[None]:
    """What the block computes of the first sample, or of its beginning, in fp32."""
    from hyocr_core.kit.smoothing import exact_output

    batch = _beginning(next(iter(batches)))
    before = exact_output(block, batch)
    yield
    change = ((exact_output(block, batch) - before).norm() / before.norm()).item()
    # Written so that NaN is refused too.
    if not change <= RESCALED_CHANGE:
        raise PromiseBroken(f"changed the block's output by {change:.1%}; rescaling must preserve it")


def _beginning(batch: Batch) -> Batch:
    """The sample's first tokens where the context holds nothing but their positions; images are no sequences to cut."""
    if batch.context.keys() != {"position_embeddings"}:
        return batch
    cos, sin = (part[:, :TRIED_TOKENS] for part in batch.context["position_embeddings"])
    states = batch.hidden_states[:, :TRIED_TOKENS]
    return replace(batch, hidden_states=states, context={"position_embeddings": (cos, sin)})


@contextmanager
def inputs_kept(layers: Sequence[Layer], stats: Stats | None) -> Iterator[None]:
    """The weights that a hook was given, and statistics that other layers share.

    Weights are compared with copies, exactly: a tensor's version counter misses writes through `.data` and NumPy, and a
    checksum can miss a permutation. The copies are one group's weights and cost about a second per billion.
    """
    copies = [layer.weight.clone() for layer in layers]
    before = _versions(stats)
    yield
    changed = first_changed([(layer.weight, copy) for layer, copy in zip(layers, copies, strict=True)])
    if changed is not None:
        raise PromiseBroken("wrote into the weight it was given; work on a copy", layer=layers[changed].name)
    # A hook that damps its Hessian in place would spoil the next layer.
    if _versions(stats) != before:
        raise PromiseBroken("wrote into its stats, which other layers share", layer=layers[0].name)


@contextmanager
def written_inside(folder: Path, *others: Path) -> Iterator[None]:
    """What lies anywhere but in `folder`, and of `others` also what other code than Python's writes there.

    Temporary files are allowed, and go to a folder beside it.
    """
    before = {other: _entries(other) for other in others}
    with _scratch_beside(folder) as scratch, _writing_only(folder.resolve(), scratch, Path("/dev")) as refused:
        yield
    # Also where the hook went on as if nothing had happened.
    for broken in refused:
        raise broken
    for other in others:
        changed = sorted(_entries(other) ^ before[other])
        if changed:
            raise _outside(other / changed[0][0])
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise PromiseBroken(f"left {path.name}, which is neither a file nor a folder", kind=MethodError)


@contextmanager
def _scratch_beside(folder: Path) -> Iterator[Path]:
    """A folder that temporary files go to, of this process and of those that it starts."""
    before, variable = tempfile.tempdir, os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory(prefix="scratch-", dir=folder.parent) as made:
        tempfile.tempdir = os.environ["TMPDIR"] = made
        try:
            yield Path(made).resolve()
        finally:
            tempfile.tempdir = before
            if variable is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = variable


def _outside(path: object) -> PromiseBroken:
    return PromiseBroken(f"wrote {path}, outside of the folder it was given", kind=MethodError)


def _entries(folder: Path) -> set[tuple[str, int, int]]:
    """Name, size and time of change of every file."""
    found = ((path.name, path.lstat()) for path in folder.iterdir() if not path.is_dir())
    return {(name, stat.st_size, stat.st_mtime_ns) for name, stat in found}


@dataclass
class _Watch:
    """Where this process may write while a hook is at work; an audit hook cannot be removed, so that it looks here."""

    allowed: tuple[Path, ...] | None = None
    refused: list[PromiseBroken] = field(default_factory=list)


_watch = _Watch()

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
_TARGETS: dict[str, tuple[int, int | None]] = {
    "os.mkdir": (0, 2),
    "os.remove": (0, 1),
    "os.rmdir": (0, 1),
    "os.truncate": (0, None),
    "os.rename": (1, 3),
    "os.link": (1, 3),
    "os.symlink": (1, 2),
}
"""Events of Python's audit that change the disk -> which arguments are the path and the open folder it starts from."""


@contextmanager
def _writing_only(*folders: Path) -> Iterator[list[PromiseBroken]]:
    """Refuse, where it happens, any write of Python code elsewhere; compiled modules of an import may be cached.

    Yields the list of what was refused.
    """
    _install_audit()
    _watch.allowed, _watch.refused = folders, []
    try:
        yield _watch.refused
    finally:
        _watch.allowed = None


@cache
def _install_audit() -> None:
    sys.addaudithook(_audit)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if _watch.allowed is None:
        return
    if event == "open":
        path, _, flags = arguments
        writes = isinstance(flags, int) and flags & _WRITING
    else:
        writes = event in _TARGETS
        path = _named(arguments, *_TARGETS[event]) if writes else None
    if writes and isinstance(path, str | os.PathLike) and not _may_write(Path(path)):
        _watch.refused.append(_outside(path))
        raise _watch.refused[-1]


def _named(arguments: tuple[Any, ...], path: int, start: int | None) -> object:
    """The path among the arguments of an event; `shutil.rmtree` gives names in a folder that it has opened."""
    named = arguments[path]
    if start is None or arguments[start] == -1 or not isinstance(named, str):
        return named
    return Path(f"/proc/self/fd/{arguments[start]}").readlink() / named


def _may_write(path: Path) -> bool:
    resolved = path.resolve()
    return "__pycache__" in resolved.parts or any(resolved.is_relative_to(folder) for folder in _watch.allowed or ())


def _versions(stats: Stats | None) -> list[int]:
    return [tensor._version for tensor in (stats or {}).values() if not tensor.is_inference()]
