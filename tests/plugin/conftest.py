"""What the tests of calls into a plugin share."""

from __future__ import annotations

import pytest

from hyocr_core.contract.types import Layer
from tests.plugin.odd import some_layer


@pytest.fixture
def layer() -> Layer:
    return some_layer()
