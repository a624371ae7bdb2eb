"""Which versions of vLLM and Transformers, together, keep the pages apart that they encode together.

Up to 0.28 vLLM has a model of its own for HunyuanOCR, which does. Since 0.29 it serves it through Transformers, whose
`get_image_features` gives one tensor for all images below 5.20.1; vLLM then cuts that by numbers of patches, which are
not those of image tokens, so that all pages but the first are read from other pages' pixels.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from packaging.version import InvalidVersion, Version

from hyocr_core.contract.config import FrozenModel

NATIVE = Version("0.29")
"""The first vLLM without a model of its own."""
MENDED = Version("5.20.1")
"""The first Transformers that gives each image its own tensor."""
INSTALL = "pip install 'transformers>=5.20.1,<5.21'"
"""What vLLM 0.33 allows; 0.32 asks for less and reads as well with it."""

SWITCH = "HYOCR_VLLM_FORWARD"
"""The environment variable that switches hyocr-vllm off, which splits what Transformers gives in one piece."""


class VllmPair(FrozenModel):
    """A vLLM and the Transformers beside it; None if there is none. plugin: hyocr-vllm is there too, and at work."""

    vllm: str
    transformers: str | None
    plugin: bool = False

    @classmethod
    def among(cls, vllm: str, packages: Mapping[str, str]) -> VllmPair:
        """That of a vLLM beside these packages, by name and version."""
        plugin = "hyocr-vllm" in packages and os.environ.get(SWITCH) != "transformers"
        return cls(vllm=vllm, transformers=packages.get("transformers"), plugin=plugin)

    @property
    def sound(self) -> bool:
        """Whether pages may be encoded together; not of versions that cannot be told."""
        try:
            if self.plugin or Version(self.vllm) < NATIVE:
                return True
            return self.transformers is not None and Version(self.transformers) >= MENDED
        except InvalidVersion:
            return False

    @property
    def remedy(self) -> str:
        """What to do where pages are mixed up."""
        serve = "vllm serve --max-num-seqs 1"
        return serve if self.sound else f"{INSTALL} beside vLLM, or pip install hyocr-vllm, or {serve}"

    @property
    def warning(self) -> str:
        """What is said of a pair that is not sound."""
        return f"{self} mixes up pages that it encodes together: {self.remedy}"

    def __str__(self) -> str:
        return f"vLLM {self.vllm} with Transformers {self.transformers or 'of no known version'}"
