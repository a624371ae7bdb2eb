"""The options of the method `hqq`. Imports no torch."""

from __future__ import annotations

from typing import Literal

from hyocr_core import MethodConfig
from hyocr_core.formats import MISREAD, PackQuantizedFormat
from pydantic import Field

BITS = 4


class HqqConfig(MethodConfig):
    """How scales are searched, and how weights are stored."""

    format: Literal["compressed-tensors"] = Field("compressed-tensors", description="checkpoint format to write")
    group_size: Literal[32, 64, 128, -1] = Field(
        128, description="input channels that share a scale; -1 is one scale per output channel"
    )
    p: float = Field(0.7, gt=0, le=1, description="the norm of the error; the smaller, the less outliers count")
    steps: int = Field(20, ge=1, description="half-quadratic steps")

    @property
    def misread(self) -> tuple[str, ...]:
        """The linear that runtimes' integer kernels misread; it stays as it is."""
        return MISREAD

    @property
    def on_disk(self) -> PackQuantizedFormat:
        """The format of the files, which packs and unpacks."""
        return PackQuantizedFormat(BITS, self.group_size, sym=True)
