"""An examination as lines and tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.table import Table

from hyocr_core.contract.backend import Forward
from hyocr_core.doctor.findings import Cache, Examination, FormatLoads, Load, Machine
from hyocr_core.resources import size

ALWAYS = ("torch", "transformers", "safetensors", "compressed-tensors")
"""Packages that are shown even if nothing is wrong with them."""


def heading(found: Examination) -> Iterator[str]:
    """Versions and the machine, a line each."""
    yield f"hyocr {found.hyocr}, Python {found.python} ({found.executable})"
    yield from _machine_lines(found.machine)
    extras = [f"{extra.name} {'yes' if extra.installed else 'no'}" for extra in found.extras]
    if extras:
        yield f"extras of hyocr-core: {', '.join(extras)}"


def tables(found: Examination) -> Iterator[Table]:
    """Packages, plugins, formats and caches."""
    shown = [package for package in found.packages if package.name in ALWAYS or package.problem is not None]
    notes = {"transformers": _whose(found.forward)}
    rows = [
        (package.name, package.version or "-", package.needed or "-", package.problem or notes.get(package.name, ""))
        for package in shown
    ]
    beside = ", ".join(f"{name} {version}" for name, version in found.vllm.packages.items())
    build = {"cpu": "CPU build", "cuda": "CUDA build", None: ""}[found.vllm.build]
    apart = {True: "reads pages at once", False: "mixes up pages", None: ""}[found.vllm.keeps_apart]
    forward = _whose(found.vllm.forward) if found.vllm.version else ""
    note = "; ".join(filter(None, (" ".join(filter(None, (build, beside and f"beside {beside}"))), apart, forward)))
    yield _table(("package", "version", "needed", ""), [*rows, ("vllm", found.vllm.version or "-", "-", note)])
    yield _table(
        ("plugin", "name", "distribution", "version", "verdict"),
        [(item.kind, item.name, item.distribution, item.version, item.problem or "ok") for item in found.plugins],
    )
    yield _format_table(found.formats)
    yield _table(("cache", "used", "disk free", "folder"), [_cache_row(cache) for cache in found.caches])


def problem_lines(found: Examination) -> Iterator[tuple[str, str | None]]:
    """One line of advice for each problem, with its colour."""
    for problem in found.problems:
        kind, colour = ("broken", "red") if problem.broken else ("advice", "yellow")
        yield f"{kind}: {problem.about}: {problem.advice}", colour
    if not found.broken:
        yield "nothing is broken", "green"


def _machine_lines(machine: Machine) -> Iterator[str]:
    cpu = machine.cpu
    threads = "" if cpu.threads is None else f", torch threads: {cpu.threads}"
    yield f"{machine.platform}: {cpu.model}, cores: {cpu.cores}{threads}, {' '.join(cpu.features) or 'no vector units'}"
    gpus = [f"{gpu.name}, {size(gpu.memory_bytes)}, compute capability {gpu.capability}" for gpu in machine.gpus]
    memory = f"memory {size(machine.memory_bytes)}, {size(machine.free_memory_bytes)} free"
    yield f"{memory}; {'; '.join(gpus) or 'no GPU'}"


def _format_table(formats: Sequence[FormatLoads]) -> Table:
    runtimes = dict.fromkeys(load.runtime for row in formats for load in row.runtimes)
    answers = [(row.format, {load.runtime: _answer(load) for load in row.runtimes}) for row in formats]
    rows = [(name, *(own.get(runtime, "no") for runtime in runtimes)) for name, own in answers]
    return _table(("format", *runtimes), rows)


def _answer(load: Load) -> str:
    if load.loads == "needs":
        return f"needs {load.why}"
    return f"{load.loads} ({load.why})" if load.loads == "yes" and load.why else load.loads


def _cache_row(cache: Cache) -> tuple[str, ...]:
    parts = ", ".join(f"{name} {size(used)}" for name, used in cache.parts.items())
    used = f"{size(cache.used_bytes)}{parts and f' ({parts})'}"
    return cache.name, used, size(cache.free_bytes), cache.folder


def _whose(forward: Forward | None) -> str:
    whose = {"reference": "the reference's forward", "transformers": "its own forward", None: "an unknown forward"}
    return f"computes {whose[forward]}"


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in titles:
        table.add_column(title, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
