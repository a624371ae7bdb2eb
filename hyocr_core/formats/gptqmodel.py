"""What the formats share that GPTQModel writes, and reads for Transformers. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from hyocr_core.formats.integer import IntegerFormat
from hyocr_core.formats.runtimes import TRANSFORMERS, Runtime
from hyocr_core.wording import phrase, tr

NEEDED = phrase("needs the packages gptqmodel and optimum")
NOT_TRIED = phrase("not tried; needs the packages gptqmodel and optimum")
VLLM_GROUPS = (-1, 32, 64, 128)


class GptqmodelFormat(IntegerFormat):
    """Codes in `qweight`, zero points in `qzeros`, `scales`."""

    codes: ClassVar[str] = "qweight"
    scales: ClassVar[str] = "scales"

    @property
    def packages(self) -> tuple[str, ...]:
        """GPTQModel's."""
        return "gptqmodel", "optimum"

    def must_unpack(self, shapes: Mapping[str, tuple[int, int]]) -> bool:  # noqa: ARG002
        """GPTQModel's kernels read it as it is."""
        return False

    @property
    def _vllm_refusal(self) -> str | None:
        if self.group_size not in VLLM_GROUPS:
            return tr("group_size {size}; it takes -1, 32, 64 and 128", size=self.group_size)
        return None

    @property
    def _transformers(self) -> Runtime:
        if self.group_size not in VLLM_GROUPS:
            return Runtime(TRANSFORMERS, "unsure", NOT_TRIED)
        return Runtime(TRANSFORMERS, "yes", NEEDED)
