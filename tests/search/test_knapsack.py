from __future__ import annotations

import random
from itertools import product

import pytest

from hyocr_core.search.candidates import Group
from hyocr_core.search.knapsack import Bound, Chosen, Option, best, total

NAMES = "abc"
Options = dict[Group, list[Option]]


def drawn(seed: int) -> Options:
    rng = random.Random(seed)  # noqa: S311
    return {
        (f"layer-{index}",): [Option(name, 64 * rng.randrange(1, 50), rng.random() * 1e-4) for name in NAMES]
        for index in range(5)
    }


def every(options: Options) -> list[Chosen]:
    return [dict(zip(options, names, strict=True)) for names in product(NAMES, repeat=len(options))]


@pytest.mark.parametrize("seed", range(12))
def test_the_choice_is_the_best_of_all(seed: int) -> None:
    options = drawn(seed)
    rng = random.Random(seed)  # noqa: S311
    nbytes, kl = 64 * rng.randrange(20, 150), 5e-4 * rng.random()
    within = [found.kl for chosen in every(options) if (found := total(options, chosen)).nbytes <= nbytes]
    chosen = best(options, Bound(nbytes=nbytes))
    assert (chosen is None) == (not within)
    if chosen is not None:
        assert total(options, chosen).nbytes <= nbytes
        assert total(options, chosen).kl == pytest.approx(min(within), rel=1e-9)
    near = [found.nbytes for chosen in every(options) if (found := total(options, chosen)).kl <= kl]
    smallest = best(options, Bound(kl=kl))
    assert (smallest is None) == (not near)
    if smallest is not None:
        assert total(options, smallest).nbytes == min(near)
        assert total(options, smallest).kl <= kl * (1 + 1e-6)


def test_a_neighbour_differs_in_as_many_groups_as_asked() -> None:
    options = drawn(0)
    first = best(options, Bound(nbytes=10**6))
    assert first is not None
    second = best(options, Bound(nbytes=10**6), [first], apart=2)
    assert second is not None
    assert sum(first[group] != second[group] for group in options) == 2
    others = [chosen for chosen in every(options) if sum(first[group] != chosen[group] for group in options) >= 2]
    assert total(options, second).kl == pytest.approx(min(total(options, chosen).kl for chosen in others))


def test_a_size_is_held_to_the_byte() -> None:
    options: Options = {
        (str(index),): [Option("small", 10**9, 1.0), Option("large", 10**9 + 1, 0.0)] for index in range(9)
    }
    chosen = best(options, Bound(nbytes=9 * 10**9 + 4))
    assert chosen is not None
    assert total(options, chosen).nbytes == 9 * 10**9 + 4
