"""The conformance kit: what a method's own tests need; extra `hyocr-core[testing]`.

    from hyocr_core.testing import MethodContract

    class TestContract(MethodContract):
        method = "mymethod"
        config = {"group_size": 32}

is the whole of it: the class brings its fixtures along. A module with `pytest_plugins = ["hyocr_core.testing.plugin"]`
has them for tests of its own. The kit is no pytest plugin of its own accord, so that pytest runs which have nothing to
do with hyocr load nothing of it. Importing this package imports no torch.

`write_generation(folder, generation)` writes a checkpoint of the layout of a published generation, of `GENERATIONS`,
in small.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hyocr_core.testing.contract import MethodContract
    from hyocr_core.testing.generations import GENERATIONS, write_generation

__all__ = ["GENERATIONS", "MethodContract", "write_generation"]
_HOMES = {"MethodContract": "contract", "GENERATIONS": "generations", "write_generation": "generations"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
