"""What an observer is: a class that an entry point in the group `hyocr.observers` names. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar

from hyocr_core.contract.config import FrozenModel
from hyocr_core.contract.types import HookCall

ENTRY_POINT_GROUP = "hyocr.observers"

OBSERVED = ("prepare", "calibrate", "settle", "quantize_layer", "quantize_group", "pack", "unpack", "quantize_inputs")
"""The hooks that work on layers while a run goes on."""


class ObserverConfig(FrozenModel):
    """Options of an observer; its own derive from this, each with a description."""


class Observer(ABC):
    """Sees what the hooks of a run were given and what they returned, as copies.

    Made when the run starts, once for each run, from the options the user gave; an error in `__init__` refuses the run.
    From then on an error switches the observer off, and the run goes on.

    api_version: the number of the contract it was written for, as a literal.
    config_class: its options.
    hooks: those it wants to see. What they take and return is copied for each call, so name no more than needed.
    """

    api_version: ClassVar[int]
    config_class: ClassVar[type[ObserverConfig]] = ObserverConfig
    hooks: ClassVar[tuple[str, ...]]

    def __init__(self, config: Any) -> None:
        """config: an instance of `config_class`."""
        self.config = config

    @abstractmethod
    def called(self, call: HookCall) -> None:
        """A hook has returned, and its result has passed the checks.

        `call.arguments` lacks what is alive: the block and its batches.
        """

    def close(self) -> None:
        """The run is at its end, or has failed."""
        return
