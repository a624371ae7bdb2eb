"""How far a quantized weight may be from the original one. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Bound:
    """decibels: the least signal-to-quantization-noise ratio of a layer.

    low, high: what a group of weights may be scaled by, found by projecting it on the original group.
    GPTQ trades the error of a weight for that of the output and a clipped range cuts single weights off, so that both
    must be generous; a doubled or halved scale, a wrong layer and a wrong zero point are still far outside.
    """

    decibels: float
    low: float
    high: float


FOUR_BITS = Bound(7.0, 0.58, 1.55)
EIGHT_BITS = Bound(26.0, 0.85, 1.18)
THREE_BITS_OF_MANTISSA = Bound(20.0, 0.85, 1.18)
ONE_STEP = Bound(15.0, -0.01, 2.01)
"""Integers of one scale for a whole weight: the steps are as wide as its largest value asks for, so that an output of
small values may well be rounded to zeros, or up to twice its size."""
ANY_BITS = Bound(3.0, 0.58, 1.55)
"""Signs alone, times their best scale, keep 4.4 dB of normally distributed weights and 0.64 of their size."""
