"""What a metric is: a class that an entry point in the group `hyocr.metrics` names. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any, ClassVar, Literal

from hyocr_core.contract.config import FrozenModel

ENTRY_POINT_GROUP = "hyocr.metrics"


class MetricConfig(FrozenModel):
    """Options of a metric; its own derive from this, each with a description."""


class Metric(ABC):
    """A number for every page, from what was read and what is written there, and one number for all pages.

    Made once for each evaluation, from the options the user gave; an error in `__init__` refuses the evaluation.

    api_version: the number of the contract it was written for, as a literal.
    config_class: its options.
    title: what tables call it, in a few words, such as `chrF`.
    better: which way is good; a gate bounds the difference to the baseline in the other one.
    unit: `%` for a fraction, which is shown times 100 and bounded in points; anything else is shown behind the number.
    together: `mean`, the sum of the pages' numbers over the sum of their sizes, or `sum`, of the numbers alone.
    needs_reference: whether pages without a transcript have no number; otherwise `reference` is empty for them.
    compares: what `reference` is: the page's `transcript`, or its `checks`, which some sources give instead.
    tasks: of which answers it measures a part, by the names of official tasks such as `table`; it is refused beside
        another task. Empty for one that is of every answer.
    """

    api_version: ClassVar[int]
    config_class: ClassVar[type[MetricConfig]] = MetricConfig
    title: ClassVar[str]
    better: ClassVar[Literal["smaller", "larger"]] = "smaller"
    unit: ClassVar[str] = ""
    together: ClassVar[Literal["mean", "sum"]] = "mean"
    needs_reference: ClassVar[bool] = True
    compares: ClassVar[Literal["transcript", "checks"]] = "transcript"
    tasks: ClassVar[tuple[str, ...]] = ()

    def __init__(self, config: Any) -> None:
        """config: an instance of `config_class`."""
        self.config = config

    @abstractmethod
    def page(self, text: str, reference: str) -> float:
        """The number of one page, finite.

        text: as the model wrote it. reference: the transcript as it is. `hyocr_core.normalize` makes of each what CER
        compares.
        """

    def size(self, reference: str) -> float:  # noqa: ARG002
        """How much a page counts in the mean, 0 or more; such as the reference's length, if `page` counts errors.

        A page of size 0 has no number of its own in a mean.
        """
        return 1.0

    def note(self, text: str, reference: str) -> str:  # noqa: ARG002
        """What is broken in `text`, which has a number all the same: a few words, empty where nothing is."""
        return ""
