"""One process among several that do one job, as the rest of hyocr sees it; alone, it does everything itself."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hyocr_core.contract.types import Collected, Stat
from hyocr_core.errors import RunError

if TYPE_CHECKING:
    from torch import Tensor

Told = TypeVar("Told")
"""What JSON can say."""

_LENGTH = 8
"""Bytes of the number that says how long the JSON in front of tensors is."""


@dataclass(frozen=True)
class Parcel:
    """A piece of work that is done. number: its place among all pieces. note: what JSON can say of it."""

    number: int
    note: Any
    tensors: Mapping[str, Tensor]


class Ranks(ABC):
    """All ranks call the same functions in the same order; what they return is the same everywhere, but for shares.

    rank: of this process, from 0. size: how many there are. local_size: on this machine. place: of this process there,
    None for the only one.
    """

    rank: int
    size: int
    local_size: int
    place: int | None = None

    @property
    def first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    @abstractmethod
    def exchange(self, payload: bytes) -> list[bytes]:
        """What all ranks have, in their order."""

    @abstractmethod
    def reduce(self, tensor: Tensor, rule: str) -> Tensor:
        """The sum, or the largest, of a tensor that all ranks have, element by element; may be in its place."""

    @abstractmethod
    def deal(self, count: int) -> Iterator[int]:
        """Numbers below `count`, each to one rank, to whichever asks next."""

    @abstractmethod
    def collected(self, items: Iterable[Told]) -> Iterator[Told]:
        """Do the work of all ranks: on the first one yield what each of them makes, as it is made; elsewhere nothing.

        items: makes this rank's, one after the other.
        """

    def working(self, ranks: int) -> AbstractContextManager[None]:  # noqa: ARG002
        """While so many of the ranks work, and the others wait."""
        return nullcontext()

    def told(self, work: Callable[[], Told]) -> Told:
        """What the first rank makes, which the others wait for."""
        found: Told = json.loads(self.exchange(_json(work()) if self.first else b"")[0])
        return found

    def share(self, sizes: Sequence[float]) -> list[int]:
        """The numbers of those that this rank takes of pieces of these sizes, in order."""
        return [number for number, owner in enumerate(self.owners(sizes)) if owner == self.rank]

    def owners(self, sizes: Sequence[float]) -> list[int]:
        """Who takes each of pieces of these sizes, so that all have about the same: the largest first, to the least."""
        loads, owners = [0.0] * self.size, [0] * len(sizes)
        for number in sorted(range(len(sizes)), key=lambda number: -sizes[number]):
            owner = loads.index(min(loads))
            owners[number] = owner
            loads[owner] += sizes[number]
        return owners

    def pooled(self, parcels: Iterable[Parcel]) -> Iterator[Parcel]:
        """The pieces of work of all ranks, by their numbers; parcels: this rank's."""
        mine = [_packed(parcel) for parcel in parcels]
        lengths = b"".join(len(each).to_bytes(_LENGTH, "little") for each in mine)
        payload = len(mine).to_bytes(_LENGTH, "little") + lengths + b"".join(mine)
        found = [parcel for payload in self.exchange(payload) for parcel in _unpacked_all(payload)]
        yield from sorted(found, key=lambda parcel: parcel.number)

    def merge(self, collected: dict[str, Collected]) -> dict[str, Collected]:
        """The statistics of all ranks' samples, of those of each; layers that share an object still do.

        Raises RunError where ranks have gathered other statistics.
        """
        owners = {id(stats): (name, stats) for name, stats in reversed(collected.items())}
        self.check_same(
            [
                [name, each, stat.merge, list(stat.value.shape), str(stat.value.dtype)]
                for name, stats in owners.values()
                for each, stat in stats.items()
            ],
            "gathered other statistics of the same layers",
        )
        merged = {
            key: {each: Stat(self.reduce(stat.value, stat.merge), stat.merge) for each, stat in stats.items()}
            for key, (_, stats) in owners.items()
        }
        return {name: merged[id(stats)] for name, stats in collected.items()}

    def check_same(self, what: Any, otherwise: str) -> None:
        """Raise RunError naming a rank that has something else here than the first one; what: JSON can say it."""
        payloads = self.exchange(_json(what))
        other = next((rank for rank, payload in enumerate(payloads) if payload != payloads[0]), None)
        if other is not None:
            raise RunError(f"rank {other} is not at one with rank 0: it {otherwise}")


@dataclass(frozen=True)
class Alone(Ranks):
    """The only process."""

    rank: int = 0
    size: int = 1
    local_size: int = 1
    place: int | None = None

    def exchange(self, payload: bytes) -> list[bytes]:
        return [payload]

    def reduce(self, tensor: Tensor, rule: str) -> Tensor:  # noqa: ARG002
        return tensor

    def deal(self, count: int) -> Iterator[int]:
        return iter(range(count))

    def collected(self, items: Iterable[Told]) -> Iterator[Told]:
        return iter(items)

    def told(self, work: Callable[[], Told]) -> Told:
        return work()

    def pooled(self, parcels: Iterable[Parcel]) -> Iterator[Parcel]:
        return iter(parcels)

    def merge(self, collected: dict[str, Collected]) -> dict[str, Collected]:
        return collected


ALONE = Alone()


def _json(value: Any) -> bytes:
    return json.dumps(value).encode()


def _packed(parcel: Parcel) -> bytes:
    import torch
    from safetensors.torch import save

    # Copies: safetensors refuses tensors that are strided or share memory.
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in parcel.tensors.items()
    }
    note = _json([parcel.number, parcel.note])
    return len(note).to_bytes(_LENGTH, "little") + note + save(tensors)


def _unpacked_all(payload: bytes) -> Iterator[Parcel]:
    view, numbers = memoryview(payload), range(_LENGTH, _LENGTH * (1 + _number(payload, 0)), _LENGTH)
    start = _LENGTH * (1 + len(numbers))
    for place in numbers:
        stop = start + _number(payload, place)
        yield _unpacked(view[start:stop])
        start = stop


def _unpacked(view: memoryview) -> Parcel:
    from safetensors.torch import load

    end = _LENGTH + _number(view, 0)
    number, note = json.loads(bytes(view[_LENGTH:end]))
    return Parcel(number, note, load(bytes(view[end:])))


def _number(view: bytes | memoryview, start: int) -> int:
    return int.from_bytes(view[start : start + _LENGTH], "little")
