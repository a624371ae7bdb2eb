"""What several processes tell each other, and how they divide what there is to do."""

from __future__ import annotations

import pytest
import torch

from hyocr_core.contract.types import Collected, Stat
from hyocr_core.errors import RunError
from hyocr_core.kit import total
from hyocr_core.models.load import pick_device
from hyocr_core.ranks.ranks import ALONE, Parcel, Ranks
from tests.ranks.in_threads import in_threads


def test_work_is_divided_evenly_and_each_piece_goes_to_one() -> None:
    """128 pages of seven sizes on four ranks."""
    sizes = [float(1000 + 911 * (number % 7) ** 2) for number in range(128)]
    shares, _ = in_threads(4, lambda ranks: ranks.share(sizes))
    assert sorted(number for share in shares for number in share) == list(range(128))
    loads = [sum(sizes[number] for number in share) for share in shares]
    assert max(loads) < 1.01 * sum(loads) / 4
    assert all(share == sorted(share) for share in shares)


def test_one_process_takes_everything() -> None:
    assert ALONE.share([3.0, 1.0, 2.0]) == [0, 1, 2]
    assert list(ALONE.deal(3)) == [0, 1, 2]
    assert ALONE.told(lambda: "so") == "so"


def test_what_the_first_says_is_what_all_hear() -> None:
    heard, _ = in_threads(3, lambda ranks: ranks.told(lambda: {"said by": ranks.rank}))
    assert heard == [{"said by": 0}] * 3


def test_pieces_of_work_reach_all_in_order() -> None:
    def work(ranks: Ranks) -> list[tuple[int, str, dict[str, torch.Tensor]]]:
        mine = (
            Parcel(number, f"by {ranks.rank}", {"a": torch.full((2, 3), float(number)).T, "b": torch.tensor(number)})
            for number in range(5)
            if number % 3 == (ranks.rank + 1) % 3
        )
        return [(parcel.number, parcel.note, dict(parcel.tensors)) for parcel in ranks.pooled(mine)]

    found, _ = in_threads(3, work)
    for seen in found:
        assert [(number, note) for number, note, _ in seen] == [
            (0, "by 2"),
            (1, "by 0"),
            (2, "by 1"),
            (3, "by 2"),
            (4, "by 0"),
        ]
        for number, _, tensors in seen:
            assert torch.equal(tensors["a"], torch.full((3, 2), float(number)))
            assert tensors["b"].item() == number


def statistics(rank: int) -> dict[str, Collected]:
    """Of three layers, two of which share theirs."""
    shared = {"hessian": Stat(torch.full((2, 2), 1.0 + rank), "sum"), "tokens": Stat(torch.tensor(5 + rank), "sum")}
    return {"q": shared, "k": shared, "o": {"largest": Stat(torch.tensor([rank, 3.0 - rank]), "max")}}


def test_statistics_are_merged_as_they_say_and_stay_shared() -> None:
    for merged in in_threads(2, lambda ranks: ranks.merge(statistics(ranks.rank)))[0]:
        assert list(merged) == ["q", "k", "o"]
        assert merged["q"] is merged["k"]
        assert torch.equal(merged["q"]["hessian"].value, torch.full((2, 2), 3.0))
        assert merged["q"]["tokens"].value.item() == 11
        assert merged["o"]["largest"].value.tolist() == [1, 3]


def test_statistics_that_differ_are_refused() -> None:
    def work(ranks: Ranks) -> object:
        found = statistics(ranks.rank)
        if ranks.rank == 1:
            found["o"] = {"least": Stat(torch.tensor(1.0), "max")}
        return ranks.merge(found)

    with pytest.raises(RunError, match="rank 1 is not at one with rank 0: it gathered other statistics"):
        in_threads(2, work)


def test_a_sum_over_batches_of_one_process_is_the_sum() -> None:
    assert total([], torch.tensor(3.0)).item() == 3


def test_what_ranks_make_reaches_the_first() -> None:
    def work(ranks: Ranks) -> list[int]:
        return sorted(ranks.collected(number * 10 for number in ranks.deal(7)))

    found, _ = in_threads(3, work)
    assert found == [[0, 10, 20, 30, 40, 50, 60], [], []]


def test_processes_take_the_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert pick_device("auto", 1) == torch.device("cpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [str(pick_device("auto", place)) for place in (None, 0, 1, 2)] == ["cuda", "cuda:0", "cuda:1", "cuda:0"]
    assert str(pick_device("cuda", 1)) == "cuda:1"
