"""The installed packages, held against what hyocr-core's own metadata asks for. Imports none of them."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from hyocr_core.contract.backend import Forward
from hyocr_core.doctor.findings import Extra, Package, Problem, Vllm
from hyocr_core.errors import MissingRuntimeError
from hyocr_core.runtimes import vllm_installed
from hyocr_core.runtimes.vllm_pair import VllmPair
from hyocr_core.runtimes.whose_forward import other_forward

CORE = "hyocr-core"
OPTIONAL = ("compressed-tensors", "gptqmodel", "optimum", "accelerate")
"""What Transformers needs for some of the formats."""
DEVELOPMENT = ("dev", "docs")
"""Extras that only work on hyocr itself needs."""


def find_packages() -> list[Package]:
    """Every package that hyocr-core needs, then those that help."""
    needed = [requirement for requirement in _requirements() if _applies(requirement, "")]
    packages = [_required(requirement) for requirement in needed]
    return packages + [Package(name=name, version=_version(name)) for name in OPTIONAL]


def find_extras() -> list[Extra]:
    """The extras of hyocr-core that its user may want."""
    try:
        names = metadata(CORE).get_all("Provides-Extra") or []
    except PackageNotFoundError:
        return []
    extras = []
    for name in sorted(set(names) - set(DEVELOPMENT)):
        wanted = [item for item in _requirements() if _applies(item, name) and not _applies(item, "")]
        extras.append(Extra(name=name, installed=all(_lack(item) is None for item in wanted)))
    return extras


READS = {
    "datasets": "datasets of the hub",
    "documents": "tables and formulas, for their metrics",
    "heif": "HEIC images",
    "modelscope": "models of ModelScope",
    "pdf": "PDF files",
}
"""What an extra is for; the others are for those who write plugins."""


def check_extras(extras: list[Extra]) -> Iterator[Problem]:
    """Say which extras would read more, and how they come."""
    lacking = [extra.name for extra in extras if extra.name in READS and not extra.installed]
    if lacking:
        reads = ", ".join(READS[name] for name in lacking)
        advice = f"to read {reads}: pip install '{CORE}[{','.join(lacking)}]'"
        yield Problem(broken=False, about="extras", advice=advice)


def find_vllm(python: Path | None) -> Vllm:
    """The vLLM of another interpreter, or of this one, in a process of its own."""
    path = str(python or sys.executable)
    none = Vllm(python=path, version=None, build=None, packages={})
    if python is None and find_spec("vllm") is None:
        return none
    try:
        found = vllm_installed.find_vllm(python)
    except MissingRuntimeError:
        return none
    return Vllm(
        python=path,
        version=found.version,
        build=found.build,
        packages=found.packages,
        keeps_apart=found.pair.sound,
        forward=found.forward,
    )


def find_own_forward() -> Forward | None:
    """Whose forward this Transformers computes by itself; None for neither, or if it cannot be imported."""
    try:
        from hyocr_core.pages.older_transformers import recompose_in_rotary
        from hyocr_core.runtimes.forward import probe

        recompose_in_rotary()
        return probe()
    except Exception:  # a broken installation is told of by its packages
        return None


def check_forward(forward: Forward | None) -> Iterator[Problem]:
    """Say when this Transformers computes what hyocr does not know."""
    if forward is None and find_spec("transformers") is not None:
        advice = "its forward of HunyuanOCR is unknown to hyocr: install one from 5.16.1 to 5.24"
        yield Problem(broken=True, about="transformers", advice=advice)


def check_vllm(vllm: Vllm) -> Iterator[Problem]:
    """Say what is wrong with the versions of a vLLM."""
    if vllm.version is not None and not vllm.keeps_apart:
        yield Problem(broken=False, about="vLLM", advice=VllmPair.among(vllm.version, vllm.packages).warning)
    if vllm.forward == "transformers":
        yield Problem(broken=False, about="vLLM", advice=other_forward("it", vllm.forward, is_vllm=True))


def check_packages(packages: list[Package]) -> Iterator[Problem]:
    """Say which packages are missing or too old."""
    if not _requirements():
        yield Problem(broken=False, about=CORE, advice="runs from a folder without being installed: pip install -e .")
    need = metadata(CORE)["Requires-Python"] if _version(CORE) else None
    if need and not SpecifierSet(need).contains(platform.python_version(), prereleases=True):
        advice = f"is {platform.python_version()}, hyocr needs {need}: make an environment with a newer one"
        yield Problem(broken=True, about="Python", advice=advice)
    for package in packages:
        if package.problem is not None:
            advice = f"{package.problem}: pip install '{package.name}{package.needed}'"
            yield Problem(broken=True, about=package.name, advice=advice)


def _requirements() -> list[Requirement]:
    try:
        return [Requirement(text) for text in requires(CORE) or []]
    except PackageNotFoundError:
        return []


def _applies(requirement: Requirement, extra: str) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({"extra": extra})


def _required(requirement: Requirement) -> Package:
    return Package(
        name=requirement.name,
        version=_version(requirement.name),
        needed=str(requirement.specifier),
        problem=_lack(requirement),
    )


def _lack(requirement: Requirement) -> str | None:
    """Why what is installed does not satisfy a requirement."""
    found = _version(requirement.name)
    if found is None:
        return "is not installed"
    if requirement.specifier.contains(found, prereleases=True):
        return None
    return f"{found} is too old, hyocr needs {requirement.specifier}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
