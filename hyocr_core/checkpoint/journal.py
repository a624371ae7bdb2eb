"""What a run has done so far, kept so that the next can go on, and proof that it is still the same run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from hyocr_core.checkpoint.durable import replacing, save_bytes, writing
from hyocr_core.checkpoint.sealed import seal, unseal
from hyocr_core.errors import OutputError
from hyocr_core.outside.json_text import read_object
from hyocr_core.outside.regular import read_regular

Record = TypeVar("Record", bound=BaseModel)

_FORMAT = 3
_ABSENT = "absent"

Vouch = Callable[[], None]


def _nothing() -> None:
    """Vouches for whatever was made."""


class Journal(Generic[Record]):
    """A sealed JSON file that is rewritten atomically with every `save`.

    fingerprint: everything the result depends on (configuration, inputs, versions); nested dicts are compared key
    by key. record: what is done so far; a resumed run sees what the first run saw. resumed: whether another process
    began it. vouch: called before every `save`; raises when what was made meanwhile is not to be noted.
    """

    def __init__(
        self, path: Path | None, fingerprint: Mapping[str, Any], record: Record, vouch: Vouch, *, resumed: bool
    ) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._vouch = vouch
        self.record = record
        self.resumed = resumed

    @classmethod
    def start(
        cls, path: Path, fingerprint: Mapping[str, Any], record: Record, vouch: Vouch = _nothing
    ) -> Journal[Record]:
        """Begin a journal on disk. Raises RunError when it cannot be written."""
        journal = cls(path, _as_json(fingerprint), record, vouch, resumed=False)
        journal.save()
        return journal

    @classmethod
    def resume(
        cls, path: Path, fingerprint: Mapping[str, Any], kind: type[Record], vouch: Vouch = _nothing
    ) -> Journal[Record]:
        """Read the journal of an unfinished run of the same fingerprint; kind: the class of its record.

        Raises OutputError when the journal is unreadable, or naming every key that changed with both values.
        """
        stored = _read(path)
        wanted = _as_json(fingerprint)
        changes = "; ".join(_changes(stored["fingerprint"], wanted))
        if changes:
            raise OutputError(
                f"cannot resume, this is not the run that was begun: {changes}; "
                f"undo the change, or start again with --fresh, which deletes what is done ({path.parent})"
            )
        try:
            return cls(path, wanted, kind.model_validate(stored["record"]), vouch, resumed=True)
        except ValidationError as error:
            raise _unreadable(path) from error

    @classmethod
    def follow(cls, record: Record, *, resumed: bool) -> Journal[Record]:
        """One that another process keeps: nothing of it is written here."""
        return cls(None, {}, record, _nothing, resumed=resumed)

    def save(self) -> None:
        """Write the record as it is now; it is on disk when this returns.

        Raises RunError when it cannot be written, and what `vouch` raises.
        """
        if self._path is None:
            return
        self._vouch()
        content = {"format": _FORMAT, "fingerprint": self._fingerprint, "record": self.record.model_dump(mode="json")}
        with writing(self._path), replacing(self._path) as partial:
            save_bytes(partial, seal(content))


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(value))


def _read(path: Path) -> dict[str, Any]:
    try:
        content = unseal(read_regular(path))
    except (OSError, ValueError) as error:
        raise (_other(path) if _is_older(path) else _unreadable(path)) from error
    if not isinstance(content, dict) or not isinstance(content.get("format"), int):
        raise _unreadable(path)
    if content["format"] != _FORMAT:
        raise _other(path)
    if not isinstance(content.get("fingerprint"), dict) or "record" not in content:
        raise _unreadable(path)
    return content


def _is_older(path: Path) -> bool:
    """Whether this is a journal from before they were sealed."""
    try:
        return read_object(path, OutputError).get("format") in (1, 2)
    except OutputError:
        return False


def _other(path: Path) -> OutputError:
    return OutputError(f"cannot resume: {path} is of another hyocr; --fresh starts again, without {path.parent}")


def _unreadable(path: Path) -> OutputError:
    return OutputError(f"cannot resume: {path} is unreadable; --fresh starts again, without {path.parent}")


def _changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in dict.fromkeys([*old, *new]):
        before, after = old.get(key, _ABSENT), new.get(key, _ABSENT)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from _changes(before, after, f"{prefix}{key}.")
        elif before != after:
            yield f"{prefix}{key}: {_show(before)} -> {_show(after)}"


def _show(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return re.sub(r"\b([0-9a-f]{12})[0-9a-f]{52}\b", r"\1…", text)
