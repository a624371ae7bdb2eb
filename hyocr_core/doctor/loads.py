"""Which formats load here, in which runtime."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec

from hyocr_core.doctor.findings import FormatLoads, Load, Machine, Problem, Vllm
from hyocr_core.errors import MissingRuntimeError
from hyocr_core.formats import LLAMA_CPP, TRANSFORMERS, VLLM_CPU, VLLM_CUDA, Format, Runtime
from hyocr_core.plugin.formats import usual_formats
from hyocr_core.runtimes.llama_installed import INSTALL, PACKAGE, PROGRAM, find_llama_server

NO_VLLM = "vLLM"
LAYER = {"model.layers.0.self_attn.q_proj": (2048, 1024)}
"""A linear of HunyuanOCR's decoder; in these formats all of them are alike to the runtimes."""


def find_loads(vllm: Vllm, machine: Machine) -> list[FormatLoads]:
    """Answer for every format: with vLLM as it is built, or would be for this machine, and with Transformers.

    llama.cpp is among them for the formats that it reads.
    """
    build = VLLM_CUDA if vllm.build == "cuda" or (vllm.build is None and machine.gpus) else VLLM_CPU
    answers = []
    for name, written in usual_formats().items():
        known = {item.name: item for item in written.runtimes(LAYER)}
        loads = [_with_vllm(known[build], vllm, machine), _with_transformers(known[TRANSFORMERS], written)]
        if LLAMA_CPP in known:
            loads.append(_with_llama_cpp(known[LLAMA_CPP]))
        answers.append(FormatLoads(format=name, runtimes=tuple(loads)))
    return answers


def check_loads(formats: list[FormatLoads], vllm: Vllm, *, asked: bool) -> Iterator[Problem]:
    """Say what more formats would load with. asked: the user named the interpreter that should have vLLM."""
    if vllm.version is None:
        advice = "has none, or cannot be run: check --python" if asked else "has none; if another has: --python PATH"
        yield Problem(broken=asked, about="vLLM", advice=f"{vllm.python} {advice}")
    waiting: dict[tuple[str, str], list[str]] = {}
    for row in formats:
        for load in row.runtimes:
            if load.loads == "needs" and load.why != NO_VLLM:
                waiting.setdefault((load.runtime, load.why), []).append(row.format)
    for (runtime, need), names in waiting.items():
        mends = {TRANSFORMERS: f": pip install {need.replace(' and ', ' ')}", LLAMA_CPP: f": {INSTALL}"}
        advice = f"needs {need} for {'; '.join(names)}{mends.get(runtime, '')}"
        yield Problem(broken=False, about=runtime, advice=advice)


def _with_vllm(known: Runtime, vllm: Vllm, machine: Machine) -> Load:
    if known.loads != "yes":
        return Load(runtime=known.name, loads=known.loads, why=known.why)
    if vllm.version is None:
        return Load(runtime=known.name, loads="needs", why=NO_VLLM)
    if known.name == VLLM_CUDA and not machine.gpus:
        return Load(runtime=known.name, loads="needs", why="a GPU")
    return Load(runtime=known.name, loads="yes", why="")


def _with_llama_cpp(known: Runtime) -> Load:
    """Which llama.cpp is here; `hyocr verify --load llama.cpp` says whether that one knows the architecture."""
    if known.loads != "yes":
        return Load(runtime=known.name, loads=known.loads, why="")
    try:
        return Load(runtime=known.name, loads="yes", why=find_llama_server(None).version)
    except MissingRuntimeError:
        return Load(runtime=known.name, loads="needs", why=f"{PROGRAM} or {PACKAGE}")


def _with_transformers(known: Runtime, written: Format) -> Load:
    missing = [name.replace("_", "-") for name in written.packages if find_spec(name) is None]
    if known.loads == "yes" and missing:
        return Load(runtime=known.name, loads="needs", why=" and ".join(missing))
    return Load(runtime=known.name, loads=known.loads, why=known.why)
