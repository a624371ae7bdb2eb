"""Single safetensors files: look into one, read from one, write one or a whole indexed set."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from huggingface_hub import split_state_dict_into_shards_factory
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from hyocr_core.checkpoint.durable import save_bytes, sync
from hyocr_core.errors import CheckpointError
from hyocr_core.outside.regular import check_regular, open_regular

INDEX_NAME = "model.safetensors.index.json"
SINGLE_NAME = "model.safetensors"
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True)
class TensorInfo:
    """What a shard's header says of one tensor. shard: the file's name within its folder."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    nbytes: int
    shard: str


def scan_shard(path: Path) -> dict[str, TensorInfo]:
    """Describe every tensor of a file, in the order of their bytes, reading no weight.

    Raises CheckpointError naming the file when its header, offsets or length are not sound.
    """
    with _reading(path), open_shard(path, "mmap") as shard:
        return {name: _describe(shard.get_tensor(name), path.name) for name in shard.offset_keys()}


def iterate_shard(path: Path, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
    """Yield the named tensors of a file one by one, each in memory of its own."""
    # pread: mapped pages would count as this process's memory for as long as the file is open.
    with _reading(path), open_shard(path, "pread") as shard:
        for name in names:
            yield name, shard.get_tensor(name)


def save_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Write one safetensors file straight from the tensors' memory and flush it. Same tensors, same bytes."""
    path.touch()
    mode = path.stat().st_mode
    save_file(dict(tensors), path, metadata={"format": "pt"})
    # safetensors writes through a temporary file, which leaves mode 0600.
    path.chmod(mode)
    sync(path)


def save_sharded(folder: Path, sources: Mapping[str, tuple[Path, TensorInfo]], shard_bytes: int) -> None:
    """Copy tensors (name -> file that holds it) into `folder` as `model.safetensors`, or as shards with an index.

    Each tensor keeps its bytes. No shard holds more than `shard_bytes` of tensors unless one tensor alone is larger.
    """
    split = split_state_dict_into_shards_factory(
        {name: sources[name][1] for name in sorted(sources)},
        get_storage_size=lambda info: info.nbytes,
        filename_pattern="model{suffix}.safetensors",
        max_shard_size=shard_bytes,
    )
    for filename, names in split.filename_to_tensors.items():
        _save_shard(folder / filename, {name: sources[name][0] for name in names})
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        save_bytes(folder / INDEX_NAME, (json.dumps(index, indent=2) + "\n").encode())


def open_shard(path: Path, backend: Literal["mmap", "pread"]) -> Any:
    """Open a safetensors file; with `mmap` its tensors are lazy views of the file. Raises OSError."""
    check_regular(path)
    return safe_open(path, framework="pt", backend=backend)


def _save_shard(path: Path, sources: Mapping[str, Path]) -> None:
    with ExitStack() as stack:
        opened = {source: stack.enter_context(open_shard(source, "mmap")) for source in dict.fromkeys(sources.values())}
        save_tensors(path, {name: opened[source].get_tensor(name) for name, source in sources.items()})


def _describe(tensor: Tensor, shard: str) -> TensorInfo:
    return TensorInfo(tuple(tensor.shape), tensor.dtype, tensor.nbytes, shard)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    try:
        yield
    except (SafetensorError, OSError) as error:
        raise CheckpointError(_complaint(path, error)) from error


def _complaint(path: Path, error: Exception) -> str:
    if not path.exists():
        return f"{path} is missing"
    if isinstance(error, OSError):
        return f"{path} cannot be read: {error.strerror or error}"
    with open_regular(path) as file:
        if file.read(len(_LFS_POINTER)) == _LFS_POINTER:
            return f"{path} is a Git LFS pointer, not the weights; fetch them with `git lfs pull`"
    return f"{path} is damaged or truncated ({error}); fetch it again"
