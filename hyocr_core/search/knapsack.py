"""The best choice under a budget, exactly: a multiple-choice knapsack, as an integer programme for HiGHS."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from hyocr_core.errors import ConfigError
from hyocr_core.search.candidates import Group

Chosen = Mapping[Group, str]
"""What each group gets."""

UNIT = 1000
"""Bytes in the programme are counted in these: the solver is exact to a millionth of what it counts in."""

ROUNDING = 1e-9
"""What a sum may be above its bound by the rounding of its terms."""


@dataclass(frozen=True)
class Option:
    """What a group may get, what that takes and what it costs: bytes, and nats per token."""

    candidate: str
    nbytes: int
    kl: float


Options = Mapping[Group, Sequence[Option]]


@dataclass(frozen=True)
class Bound:
    """What the other of the two is minimized under; bytes are those of the groups alone. None: no bound."""

    nbytes: int | None = None
    kl: float | None = None


def check_solver() -> None:
    """Raise ConfigError where the solver is not installed."""
    _library("scipy.optimize")


def best(options: Options, bound: Bound, unlike: Sequence[Chosen] = (), apart: int = 1) -> Chosen | None:
    """The choice of least KL under a bound of bytes, or of fewest bytes under one of KL; None when nothing meets it.

    The optimum is proven. unlike: choices from each of which at least `apart` groups are to differ. Of two choices of
    the same KL the smaller is as good as the other.
    """
    names = [(group, option) for group, own in options.items() for option in own]
    nbytes = np.array([option.nbytes / UNIT for _, option in names])
    kl = np.array([option.kl for _, option in names])
    # Scaled to the largest, since the solver's tolerances are absolute.
    unit = float(kl.max()) or 1.0
    rows = [(kl / unit, bound.kl / unit)] if bound.kl is not None else []
    if bound.nbytes is not None:
        rows.append((nbytes, bound.nbytes / UNIT))
    for chosen in unlike:
        same = np.array([float(chosen.get(group) == option.candidate) for group, option in names])
        rows.append((same, len(options) - apart))
    costs = kl / unit if bound.nbytes is not None else nbytes
    found = _solve(costs, _one_each(options, names), rows)
    if found is None:
        return None
    return {group: option.candidate for (group, option), taken in zip(names, found, strict=True) if taken}


def total(options: Options, chosen: Chosen) -> Option:
    """Bytes and KL of a choice, each the sum over the groups."""
    taken = [option for group, own in options.items() for option in own if option.candidate == chosen[group]]
    return Option("", sum(option.nbytes for option in taken), sum(option.kl for option in taken))


def _one_each(options: Options, names: Sequence[tuple[Group, Option]]) -> Any:
    at = {group: row for row, group in enumerate(options)}
    matrix = np.zeros((len(options), len(names)))
    for column, (group, _) in enumerate(names):
        matrix[at[group], column] = 1
    return matrix


def _solve(costs: Any, one_each: Any, rows: Sequence[tuple[Any, float]]) -> Any:
    """Whether each is taken; None when nothing meets the rows, each a vector and what its product is to be at most."""
    optimize = _library("scipy.optimize")
    limits = [limit for _, limit in rows]
    while True:
        constraints = [optimize.LinearConstraint(one_each, 1, 1)]
        constraints += [optimize.LinearConstraint(row, ub=limit) for (row, _), limit in zip(rows, limits, strict=True)]
        whole = np.ones(len(costs))
        with _silent_library():
            done = optimize.milp(
                costs,
                integrality=whole,
                bounds=optimize.Bounds(0, 1),
                constraints=constraints,
                options={"mip_rel_gap": 0},
            )
        if done.x is None:
            return None
        taken = done.x > 0.5
        over = [float(row @ taken) - limit for row, limit in rows]
        if max(over, default=0.0) <= ROUNDING:
            return taken
        # By the solver's tolerance; never by what a user could see, but a bound is a bound.
        limits = [limit - max(2 * excess, 0.0) for limit, excess in zip(limits, over, strict=True)]


@contextmanager
def _silent_library() -> Iterator[None]:
    """Keep stdout clean, where `--json` writes: HiGHS prints a line from C when it polishes a solution."""
    sys.stdout.flush()
    kept, nothing = os.dup(1), os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)
    try:
        yield
    finally:
        # What C has not written yet would come later.
        ctypes.CDLL(None).fflush(None)
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nothing)


def _library(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError("hyocr search needs scipy: pip install 'hyocr-core[search]'") from error
