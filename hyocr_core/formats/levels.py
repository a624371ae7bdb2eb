"""Where quantized weights stand among the values that their format has. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Levels:
    """steps: (N, K) fp32, how far the nearest other value is from each weight; from one of usual size of its output,
    where that is further, as in floats: methods hand errors on from weight to weight.

    lowest, highest: (N, K) bool, whether there is none below, or above: what was clipped ends there.
    """

    steps: Tensor
    lowest: Tensor
    highest: Tensor
