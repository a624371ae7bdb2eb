"""The world that is broken, made once, and the endpoint that serves from it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzz.served import Served
from tests.fuzz.world import build


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("fuzz") / "world")


@pytest.fixture(scope="session")
def server() -> Iterator[Served]:
    with Served() as served:
        yield served
