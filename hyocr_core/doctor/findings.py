"""What `hyocr doctor` finds; `--json` prints it. Imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from hyocr_core.contract.backend import Forward
from hyocr_core.contract.config import FrozenModel


class Package(FrozenModel):
    name: str
    version: str | None = Field(description="None when it is not installed")
    needed: str = Field(
        "", description="versions that hyocr needs; empty if it needs the package for some formats only"
    )
    problem: str | None = None


class Extra(FrozenModel):
    name: str
    installed: bool


class Plugin(FrozenModel):
    kind: Literal["method", "observer", "format"]
    name: str
    distribution: str
    version: str
    problem: str | None = Field(description="why a run that names it would be refused")


class Vllm(FrozenModel):
    python: str = Field(description="the interpreter that was asked")
    version: str | None
    build: Literal["cpu", "cuda"] | None
    packages: dict[str, str] = Field(
        description="versions beside it: torch, transformers, compressed-tensors, hyocr-vllm"
    )
    forward: Forward | None = Field(None, description="whose forward of HunyuanOCR it computes, as far as known")
    keeps_apart: bool | None = Field(None, description="whether these versions keep pages apart that are read at once")


class Cpu(FrozenModel):
    model: str
    cores: int = Field(description="that this process may use")
    threads: int | None = Field(description="that torch uses; None when it cannot be imported")
    features: tuple[str, ...] = Field(description="of those that torch's kernels gain from")


class Gpu(FrozenModel):
    name: str
    memory_bytes: int
    capability: str = Field(description="compute capability, such as 9.0")


class Machine(FrozenModel):
    platform: str
    cpu: Cpu
    gpus: tuple[Gpu, ...]
    cuda: str | None = Field(description="CUDA that torch is built for")
    memory_bytes: int
    free_memory_bytes: int


class Load(FrozenModel):
    """Whether a runtime loads a format here. why: what is missing for `needs`, or what is to be known."""

    runtime: str
    loads: Literal["yes", "no", "unsure", "needs"]
    why: str


class FormatLoads(FrozenModel):
    format: str
    runtimes: tuple[Load, ...]


class Cache(FrozenModel):
    name: str
    folder: str
    used_bytes: int
    parts: dict[str, int] = Field({}, description="bytes of the folders inside")
    free_bytes: int
    writable: bool


class Problem(FrozenModel):
    """broken: something of hyocr does not work until it is mended. advice: what is the matter, and what to do."""

    broken: bool
    about: str
    advice: str


class Examination(FrozenModel):
    hyocr: str
    python: str
    executable: str
    packages: tuple[Package, ...]
    extras: tuple[Extra, ...]
    plugins: tuple[Plugin, ...]
    forward: Forward | None = Field(description="whose forward of HunyuanOCR this Transformers computes by itself")
    vllm: Vllm
    machine: Machine
    formats: tuple[FormatLoads, ...]
    caches: tuple[Cache, ...]
    problems: tuple[Problem, ...]

    @property
    def broken(self) -> tuple[Problem, ...]:
        return tuple(problem for problem in self.problems if problem.broken)
