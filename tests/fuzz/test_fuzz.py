"""A short run of the fuzzers, the same every time; `make fuzz` is the long one."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.fuzz.served import Served
from tests.fuzz.targets import TARGETS, Case
from tests.fuzz.trial import try_case

pytestmark = pytest.mark.needs_methods

FEW = 3
"""Cases of a target."""


@pytest.mark.parametrize("name", TARGETS)
def test_a_command_ends_in_time_with_a_line_whatever_it_reads(name: str, world: Path, server: Served) -> None:
    @settings(
        max_examples=FEW,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(TARGETS[name](world))
    def tried(case: Case) -> None:
        ended = try_case(case, world, server)
        assert ended.fault is None, f"{case.command}: {ended.fault}"

    tried()
