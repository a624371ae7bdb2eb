"""Write a checkpoint so that its folder appears finished or not at all.

Everything is made in a stage next to the target:

    .TARGET.hyocr-partial/
        lock             held (flock) by the run that works here
        journal.json     see `journal.py`
        parts/           one safetensors file for each quantized block
        checkpoint/      the result, made by `build` and renamed to the target by `publish`
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, TracebackType
from typing import Any

import torch
from torch import Tensor

from hyocr_core.checkpoint.durable import LONGEST_NAME, copy_file, replacing, save_bytes, sync, try_lock, writing
from hyocr_core.checkpoint.reader import CONFIG_NAME, CheckpointReader, digest
from hyocr_core.checkpoint.shards import TensorInfo, iterate_shard, save_sharded, save_tensors, scan_shard
from hyocr_core.errors import BadInputError, CheckpointError, ConfigError, OutputError, RunError
from hyocr_core.outside.home import expanded

SHARD_BYTES = 512 * 2**20


def stage_folder(target: Path) -> Path:
    """Return where the stage of `target`, a resolved path, is or would be."""
    return target.parent / f".{target.name}.hyocr-partial"


def unaccepted_folder(target: Path) -> Path:
    """Return where a checkpoint for `target` goes that failed its gate."""
    return target.with_name(f"{target.name}.unaccepted")


def refuse_unaccepted(target: Path) -> None:
    """Raise OutputError when a checkpoint that failed its gate, or anything else, lies where another may have to go."""
    folder = unaccepted_folder(expanded(target).resolve())
    if folder.is_file() or (folder.is_dir() and any(folder.iterdir())):
        raise OutputError(
            f"{folder} is there, where this checkpoint would go if it failed its gate: delete or rename that, "
            "or give another output"
        )


def is_unfinished(target: Path) -> bool:
    """Whether there is a run for `target` to resume."""
    return _journal(stage_folder(_usable(target))).is_file()


def goes_on(target: Path, *, resume: bool | None, fresh: bool) -> bool:
    """Whether a run for `target` continues an unfinished one, None: if there is one. fresh: gives that up.

    Raises ConfigError when both are asked for.
    """
    if resume and fresh:
        raise ConfigError("resume goes on with an unfinished run, and fresh deletes it: give one of them")
    return is_unfinished(target) if resume is None and not fresh else bool(resume)


def existing_folder(target: Path) -> Path:
    """Return `target`, a resolved path, or the nearest of its parents that is there."""
    return next(path for path in (target, *target.parents) if path.is_dir())


def check_target(target: Path, *, resume: bool, fresh: bool = False) -> None:
    """Raise OutputError as `StagedCheckpoint.open` would; write nothing."""
    target = _usable(target)
    folder = stage_folder(target)
    _refuse_used(target, folder, resume=resume)
    parent = next(path for path in folder.parents if path.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise OutputError(
            f"cannot write in {folder.parent}: {parent} is {'not writable' if parent.is_dir() else 'a file'}"
        )
    if (folder / "lock").is_file():
        os.close(_take_lock(folder, target))
    if not resume and not fresh:
        _refuse_unfinished(target, folder)


def drop_stage(target: Path) -> None:
    """Delete what is left beside a checkpoint that is published. Raises OutputError while a run holds it."""
    target = expanded(target).resolve()
    folder = stage_folder(target)
    if folder.is_dir():
        lock = _take_lock(folder, target)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


class StagedCheckpoint:
    """The stage of one output folder, held exclusively until `publish` or `close`.

    target: the folder that will appear. folder: the stage.
    As a context manager it keeps the stage for `--resume`, unless nothing in it is worth that: no journal was begun,
    or a new run was refused for its input (BadInputError) before its first part.
    """

    def __init__(self, target: Path, folder: Path, lock: int | None, *, resumed: bool) -> None:
        self.target = target
        self.folder = folder
        self._lock = lock
        self._resumed = resumed

    @classmethod
    def open(cls, target: Path, *, resume: bool, fresh: bool = False) -> StagedCheckpoint:
        """Take the stage of `target`, a folder that is empty or does not exist.

        fresh: delete what an unfinished run has done.
        Raises OutputError when the target cannot be used, another run holds it, an unfinished run would be lost
        (`resume` and `fresh` false), or there is none (`resume` true).
        """
        target = _usable(target)
        folder = stage_folder(target)
        if target.is_dir() and any(target.iterdir()):
            _drop_published(folder)
        _refuse_used(target, folder, resume=resume)
        _make_folder(folder)
        stage = cls(target, folder, _take_lock(folder, target), resumed=resume)
        if not resume:
            stage._start_anew(fresh=fresh)
        stage._parts.mkdir(exist_ok=True)
        return stage

    @classmethod
    def shared(cls, target: Path) -> StagedCheckpoint:
        """The stage that another process of the same run holds, to look into and to put samples in."""
        target = _usable(target)
        return cls(target, stage_folder(target), None, resumed=True)

    @property
    def journal_path(self) -> Path:
        """Where the run's journal belongs; a stage without it holds nothing that could be resumed."""
        return _journal(self.folder)

    def part_path(self, name: str) -> Path:
        """Where the part `name` is, or would be."""
        return self._parts / f"{name}.safetensors"

    def add_part(self, name: str, tensors: Mapping[str, Tensor]) -> str:
        """Write tensors under their on-disk names as the part `name`; on disk when this returns, whole or not at all.

        Returns the SHA-256 of its file. Raises RunError when it cannot be written.
        """
        # Copies: safetensors refuses tensors that are strided or share memory.
        copies = {
            key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()
        }
        path = self.part_path(name)
        with writing(path), replacing(path) as partial:
            save_tensors(partial, copies)
            return digest(partial)

    def read_part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors of a part. Raises OutputError when its file was damaged."""
        path = self.part_path(name)
        try:
            return dict(iterate_shard(path, scan_shard(path)))
        except CheckpointError as error:
            raise OutputError(f"cannot resume: {error}; --fresh starts again, without {self.folder}") from error

    def build(
        self,
        reader: CheckpointReader,
        carried: Iterable[str],
        part_names: Sequence[str],
        config: Mapping[str, Any],
        replaced: Mapping[str, str] = MappingProxyType({}),
        shard_bytes: int = SHARD_BYTES,
    ) -> dict[str, str]:
        """Build the checkpoint at `checkpoint`, anew if it is there; return the SHA-256 of each of its files by name.

        carried: tensors to copy from `reader` byte for byte, those in `replaced` from the part named there instead.
        config: the new config.json. The reader's side files are copied along.
        Raises RunError when it cannot be written or a tensor would be written twice; the stage then stays resumable.
        """
        sources = self._sources(reader, carried, part_names, replaced)
        with writing(self.target):
            shutil.rmtree(self.checkpoint, ignore_errors=True)
            self.checkpoint.mkdir()
            save_sharded(self.checkpoint, sources, shard_bytes)
            for path in reader.side_files():
                copy_file(path, self.checkpoint / path.name)
            save_bytes(self.checkpoint / CONFIG_NAME, (json.dumps(config, indent=2) + "\n").encode())
            return CheckpointReader(self.checkpoint).digests()

    def add_file(self, name: str, content: bytes) -> None:
        """Write a further file of the built checkpoint. Raises RunError when it cannot be written."""
        with writing(self.target):
            save_bytes(self.checkpoint / name, content)

    def take_files(self, folder: Path, reserved: Container[str] = ()) -> dict[str, str]:
        """Move files into the built checkpoint; return the SHA-256 of each by its name.

        reserved: names of files and folders that the checkpoint is still to get.
        Raises RunError when it cannot be done, or a file would take the place of another.
        """
        digests = {}
        with writing(self.target):
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                name = str(path.relative_to(folder))
                place = self.checkpoint / name
                if place.exists() or path.relative_to(folder).parts[0] in reserved:
                    raise RunError(f"{name} would take the place of a file of the checkpoint")
                place.parent.mkdir(parents=True, exist_ok=True)
                sync(path)
                path.rename(place)
                digests[name] = digest(place)
        return digests

    def publish(self, *, accepted: bool = True) -> Path:
        """Rename the built checkpoint to the target, or to `unaccepted_folder`, and delete the stage.

        Returns where the checkpoint is. Raises RunError when that cannot be done; the stage then stays resumable.
        """
        place = self.target if accepted else unaccepted_folder(self.target)
        with writing(place):
            sync(self.checkpoint)
            if place.is_dir():
                shutil.copymode(place, self.checkpoint)
            self.checkpoint.rename(place)
            sync(place.parent)
            # From here on the stage is rubbish; without its journal no later run takes it for an unfinished one.
            self.journal_path.unlink(missing_ok=True)
            self.close()
            shutil.rmtree(self.folder, ignore_errors=True)
        return place

    def forget(self) -> None:
        """Give up what was done so far: nothing of it is to be resumed. Raises RunError when that cannot be done."""
        with writing(self.folder):
            self.journal_path.unlink(missing_ok=True)

    def close(self) -> None:
        """Let go of the stage and keep it, for `--resume`."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> StagedCheckpoint:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        refused = isinstance(error, BadInputError) and not self._resumed and not any(self._parts.iterdir())
        if self._lock is not None and (refused or not self.journal_path.is_file()):
            shutil.rmtree(self.folder, ignore_errors=True)
        self.close()

    @property
    def checkpoint(self) -> Path:
        """The finished checkpoint, once it is built."""
        return self.folder / "checkpoint"

    @property
    def _parts(self) -> Path:
        return self.folder / "parts"

    def _start_anew(self, *, fresh: bool) -> None:
        try:
            if not fresh:
                _refuse_unfinished(self.target, self.folder)
        except OutputError:
            self.close()
            raise
        for path in self.folder.iterdir():
            if path.is_dir():
                shutil.rmtree(path)
            elif path.name != "lock":
                path.unlink()

    def _sources(
        self, reader: CheckpointReader, carried: Iterable[str], part_names: Sequence[str], replaced: Mapping[str, str]
    ) -> dict[str, tuple[Path, TensorInfo]]:
        sources = {name: (reader.folder / reader.tensors[name].shard, reader.tensors[name]) for name in carried}
        found = {part: scan_shard(self.part_path(part)) for part in set(replaced.values())}
        for name, part in replaced.items():
            sources[name] = (self.part_path(part), found[part][name])
        for part in part_names:
            path = self.part_path(part)
            for name, info in scan_shard(path).items():
                if name in sources:
                    raise RunError(f"the tensor {name} would be written twice: from {sources[name][0]} and {path}")
                sources[name] = (path, info)
        return sources


def _journal(stage: Path) -> Path:
    return stage / "journal.json"


def _usable(target: Path) -> Path:
    # Resolved, so that the stage lies on the file system of what a link leads to.
    target = expanded(target).resolve()
    if len(os.fsencode(stage_folder(target).name)) > LONGEST_NAME:
        raise OutputError(f"{target}: the output's name is too long for what a run makes beside it: give a shorter one")
    if target.exists() and not target.is_dir():
        raise OutputError(f"{target} is a file: give a new or empty folder as the output")
    if target.is_mount():
        raise OutputError(f"{target} is a mount point, which cannot be replaced: give a new folder inside it")
    return target


def _refuse_used(target: Path, stage: Path, *, resume: bool) -> None:
    if target.is_dir() and any(target.iterdir()):
        raise OutputError(f"{target} is not empty: give a new or empty folder as the output")
    if resume and not _journal(stage).is_file():
        raise OutputError(f"there is no unfinished run for {target} to resume: run without --resume")


def _refuse_unfinished(target: Path, stage: Path) -> None:
    if _journal(stage).is_file():
        raise OutputError(
            f"an unfinished run for {target} is in {stage}: "
            "continue it with --resume, or start again with --fresh, which deletes what it has done"
        )


def _drop_published(stage: Path) -> None:
    if stage.is_dir() and not _journal(stage).exists():
        shutil.rmtree(stage, ignore_errors=True)


def _make_folder(stage: Path) -> None:
    try:
        stage.mkdir(parents=True, exist_ok=True)
        sync(stage.parent)
    except OSError as error:
        raise OutputError(f"cannot write in {stage.parent}: {error}") from error


def _take_lock(stage: Path, target: Path) -> int:
    lock = try_lock(stage / "lock")
    if lock is None:
        raise OutputError(f"another run is writing {target}: wait for it, or choose another output")
    return lock
