"""Read a safetensors checkpoint folder: checked as a whole when opened, read tensor by tensor."""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from copy import copy
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from hyocr_core.checkpoint.durable import LONGEST_NAME
from hyocr_core.checkpoint.model_files import check_files
from hyocr_core.checkpoint.quant_report import FILE_NAME as REPORT_NAME
from hyocr_core.checkpoint.shards import INDEX_NAME, SINGLE_NAME, TensorInfo, iterate_shard, scan_shard
from hyocr_core.errors import CheckpointError
from hyocr_core.kit.checks import is_finite
from hyocr_core.outside.json_text import read_object
from hyocr_core.outside.regular import open_regular, read_regular

__all__ = ["CheckpointReader", "TensorInfo"]

CONFIG_NAME = "config.json"
_WRITTEN_ANEW = {CONFIG_NAME, REPORT_NAME, "README.md"}
_WEIGHT_SUFFIXES = (
    *(".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".pt", ".pth", ".ckpt", ".onnx"),
    *(".onnx_data", ".gguf", ".ggml", ".h5", ".msgpack", ".tflite", ".pb", ".npz", ".npy", ".pkl", ".pickle"),
)


_READ_SUFFIXES = (".json", ".jinja", ".model", ".py", *_WEIGHT_SUFFIXES)
"""Of files that runtimes may look for, besides the vocabularies."""
_VOCABULARIES = ("vocab.txt", "merges.txt")


class CheckpointReader:
    """A checkpoint folder whose files are sound and agree with each other.

    folder: where it is. config: config.json as read. tensors: on-disk name -> TensorInfo, in the order of the files.
    Raises CheckpointError naming the file or tensor; reads headers only.
    """

    folder: Path
    config: dict[str, Any]
    tensors: Mapping[str, TensorInfo]

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise CheckpointError(f"{folder} is not a folder: give the folder of a checkpoint")
        check_files(folder)
        self.folder = folder
        self.config = _read_config(folder)
        # As in Transformers: a file with all weights goes before an index beside it.
        self._index = None if (folder / SINGLE_NAME).is_file() else _read_index(folder)
        shards = [SINGLE_NAME] if self._index is None else sorted(set(self._index.values()))
        self.tensors = MappingProxyType(_scan(folder, shards))
        if self._index is not None:
            _check_index(self._index, self.tensors)

    def read(self, names: Iterable[str]) -> dict[str, Tensor]:
        """Return the named tensors, in the order of `names`, each in memory of its own; no file stays open.

        Raises CheckpointError for a name that the checkpoint lacks.
        """
        names = list(names)
        found = dict(self._iterate(names))
        return {name: found[name] for name in names}

    def without(self, names: Iterable[str]) -> CheckpointReader:
        """Return the same checkpoint as if it lacked the named tensors; its files are the same."""
        dropped = set(names)
        view = copy(self)
        view.tensors = MappingProxyType({name: info for name, info in self.tensors.items() if name not in dropped})
        return view

    def check_finite(self, names: Iterable[str], progress: Callable[[str], None] | None = None) -> None:
        """Read the named tensors one by one; raise CheckpointError naming the first that holds NaN or infinity.

        progress: called with each name after its tensor has passed.
        """
        for name, tensor in self._iterate(names):
            if not is_finite(tensor):
                shard = self.tensors[name].shard
                raise CheckpointError(f"{self.folder / shard}: tensor {name} holds NaN or infinite values")
            if progress is not None:
                progress(name)

    def digests(self) -> dict[str, str]:
        """Return file name -> SHA-256 of every file that the result depends on."""
        return {name: digest(self.folder / name) for name in self.file_names()}

    def file_names(self) -> list[str]:
        """Return the files that the result depends on: config, weights, carried files."""
        index = [] if self._index is None else [INDEX_NAME]
        shards = dict.fromkeys(info.shard for info in self.tensors.values())
        return [CONFIG_NAME, *index, *shards, *self._side_names()]

    def side_files(self) -> list[Path]:
        """Return the files to carry over byte for byte: tokenizer, processor, chat template, licence and so on.

        Left out: weights of any format, what a run writes anew, hidden files, sub folders.
        """
        return [self.folder / name for name in self._side_names()]

    def read_names(self) -> list[str]:
        """Return the names of this folder's files that some runtime may read, whether the checkpoint has them or not.

        Left out: what hyocr says of the checkpoint, hidden files, sub folders.
        """
        names = (path.name for path in self.folder.iterdir() if path.is_file() and not path.name.startswith("."))
        return sorted(
            name for name in names if name != REPORT_NAME and (name.endswith(_READ_SUFFIXES) or name in _VOCABULARIES)
        )

    def _side_names(self) -> list[str]:
        return sorted(path.name for path in self.folder.iterdir() if _is_side_file(path))

    def _iterate(self, names: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        by_shard: dict[str, list[str]] = defaultdict(list)
        for name in names:
            if name not in self.tensors:
                raise CheckpointError(f"{self.folder}: the tensor {name} is missing")
            by_shard[self.tensors[name].shard].append(name)
        for shard, members in by_shard.items():
            yield from iterate_shard(self.folder / shard, members)


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_NAME
    if not path.is_file():
        raise CheckpointError(f"{path} is missing: this is not the folder of a checkpoint")
    config = read_object(path, CheckpointError)
    if not isinstance(config.get("quantization_config"), dict | None):
        raise CheckpointError(f"{path}: quantization_config must be an object")
    return config


def _read_index(folder: Path) -> dict[str, str]:
    path = folder / INDEX_NAME
    if not path.is_file():
        raise CheckpointError(f"{folder} has neither {SINGLE_NAME} nor {INDEX_NAME}: hyocr reads safetensors only")
    weight_map = read_object(path, CheckpointError).get("weight_map")
    json.loads(read_regular(path), object_pairs_hook=_unique(path))
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path} has no weight_map that names tensors and their files")
    for name, shard in weight_map.items():
        _check_shard_name(path, name, shard)
    return weight_map


def _unique(path: Path) -> Callable[[list[tuple[str, Any]]], dict[str, Any]]:
    def build(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        built = dict(pairs)
        if len(built) < len(pairs):
            keys = [key for key, _ in pairs]
            twice = next(key for key in built if keys.count(key) > 1)
            raise CheckpointError(f"{path} names {twice} twice")
        return built

    return build


def _check_shard_name(index: Path, name: str, shard: object) -> None:
    if not isinstance(shard, str) or not shard.endswith(".safetensors"):
        raise CheckpointError(f"{index}: the entry of {name} is not the name of a safetensors file: {shard!r}")
    if "/" in shard or "\\" in shard or "\0" in shard:
        raise CheckpointError(f"{index}: the entry of {name} must be a file of this folder, not {shard!r}")
    if len(os.fsencode(shard)) > LONGEST_NAME:
        raise CheckpointError(f"{index}: the entry of {name} is longer than the name of a file can be")


def _scan(folder: Path, shards: Iterable[str]) -> dict[str, TensorInfo]:
    tensors: dict[str, TensorInfo] = {}
    for shard in shards:
        for name, info in scan_shard(folder / shard).items():
            if name in tensors:
                raise CheckpointError(f"{folder}: the tensor {name} is in both {tensors[name].shard} and {shard}")
            tensors[name] = info
    return tensors


def _check_index(index: Mapping[str, str], tensors: Mapping[str, TensorInfo]) -> None:
    for name, shard in index.items():
        if name not in tensors or tensors[name].shard != shard:
            raise CheckpointError(f"{INDEX_NAME} says that the tensor {name} is in {shard}, but it is missing there")
    for name, info in tensors.items():
        if name not in index:
            raise CheckpointError(f"{info.shard} holds the tensor {name}, which {INDEX_NAME} does not name")


def _is_side_file(path: Path) -> bool:
    if path.name.startswith(".") or path.name in _WRITTEN_ANEW or path.name.lower().endswith(_WEIGHT_SUFFIXES):
        return False
    if path.is_symlink():
        _check_link(path)
    return path.is_file()


def _check_link(path: Path) -> None:
    """Raise CheckpointError for a link out of the checkpoint: what it leads to would be copied, and published."""
    if not path.exists():
        raise CheckpointError(f"{path} is a link to a file that is not there; fetch the checkpoint again")
    folder, target = path.parent.resolve(), path.resolve()
    # In the hub's cache the files of a repository's snapshots are links into its blobs.
    caches = [parent.parent / "blobs" for parent in folder.parents if parent.name == "snapshots"]
    if not any(target.is_relative_to(inside) for inside in (folder, *caches)):
        raise CheckpointError(f"{path} is a link to {target}, outside of the checkpoint: put the file itself there")


def digest(path: Path) -> str:
    """SHA-256 of a file."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
