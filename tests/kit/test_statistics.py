"""Statistics of two sets of samples as those of both."""

from __future__ import annotations

from typing import Literal

import pytest
import torch

from hyocr_core.contract.types import Collected, Stat
from hyocr_core.kit.statistics import merge, values_of


def stat(rule: Literal["sum", "max"], *values: float) -> Stat:
    return Stat(torch.tensor(values), rule)


def test_sums_add_up_and_maxima_are_the_larger_element_by_element() -> None:
    left = {"a": {"total": stat("sum", 1, -2), "largest": stat("max", 5, -7)}}
    right = {"a": {"total": stat("sum", 10, 20), "largest": stat("max", 4, -6)}}
    merged = merge(left, right)
    assert {name: own.merge for name, own in merged["a"].items()} == {"total": "sum", "largest": "max"}
    assert values_of(merged)["a"]["total"].tolist() == [11, 18]
    assert values_of(merged)["a"]["largest"].tolist() == [5, -6]
    # What was merged stays as it was: a process may still hold it.
    assert left["a"]["total"].value.tolist() == [1, -2]
    assert right["a"]["largest"].value.tolist() == [4, -6]


def test_merging_keeps_integers_exact() -> None:
    large = 2**53
    left, right = ({"a": {"tokens": Stat(torch.tensor(count), "sum")}} for count in (large, 1))
    assert values_of(merge(left, right))["a"]["tokens"].item() == large + 1


def test_nan_is_not_lost() -> None:
    merged = merge({"a": {"x": stat("max", float("nan"))}}, {"a": {"x": stat("max", 1)}})
    assert merged["a"]["x"].value.isnan().all()


def test_layers_that_share_an_object_still_do() -> None:
    def of_group() -> dict[str, Collected]:
        shared = {"total": stat("sum", 1)}
        return {"q": shared, "k": shared, "o": {"total": stat("sum", 1)}}

    merged = merge(of_group(), of_group())
    assert list(merged) == ["q", "k", "o"]
    assert merged["q"] is merged["k"]
    assert merged["q"] is not merged["o"]
    values = values_of(merged)
    assert list(values) == ["q", "k", "o"]
    assert values["q"] is values["k"]
    assert values["q"] is not values["o"]
    assert [own["total"].item() for own in values.values()] == [2, 2, 2]


def test_what_is_shared_on_one_side_only_is_merged_for_each() -> None:
    shared = {"total": stat("sum", 1)}
    merged = merge({"q": shared, "k": shared}, {"q": {"total": stat("sum", 1)}, "k": {"total": stat("sum", 2)}})
    assert [own["total"].value.item() for own in merged.values()] == [2, 3]


@pytest.mark.parametrize(
    ("right", "problem"),
    [
        ({}, "a: only one of two sets of samples has statistics of it"),
        ({"a": {}}, "a: x is in one of two sets of samples only"),
        ({"a": {"x": stat("sum", 1), "y": stat("sum", 1)}}, "a: y is in one of two sets of samples only"),
        ({"a": {"x": stat("max", 1)}}, "a: x is another statistic in each of two sets of samples"),
        ({"a": {"x": stat("sum", 1, 2)}}, "a: x is another statistic in each of two sets of samples"),
        (
            {"a": {"x": stat("sum", 1)}, "b": {"x": stat("sum", 1)}},
            "b: only one of two sets of samples has statistics of it",
        ),
    ],
)
def test_what_does_not_belong_together_is_refused_by_name(right: dict[str, Collected], problem: str) -> None:
    left = {"a": {"x": stat("sum", 1)}}
    for pair in ((left, right), (right, left)):
        with pytest.raises(ValueError, match=rf"^{problem}$"):
            merge(*pair)
