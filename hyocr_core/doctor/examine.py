"""All of it together."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from pathlib import Path

from hyocr_core._version import __version__
from hyocr_core.doctor import loads, machine, packages, storage
from hyocr_core.doctor.findings import Examination, Plugin, Problem
from hyocr_core.plugin.entry_points import fault_of
from hyocr_core.plugin.formats import installed_formats, load_format
from hyocr_core.plugin.observers import installed_observers, load_observer
from hyocr_core.plugin.registry import installed_methods, load_method


def examine(python: Path | None = None) -> Examination:
    """Look at this machine and this environment; load no model. python: another interpreter to look for vLLM in."""
    found = packages.find_packages()
    vllm = packages.find_vllm(python)
    forward = packages.find_own_forward()
    here, problems = machine.find_machine()
    formats = loads.find_loads(vllm, here)
    caches = storage.find_caches()
    plugins = _find_plugins()
    extras = packages.find_extras()
    problems += [
        *packages.check_packages(found),
        *packages.check_extras(extras),
        *_check_plugins(plugins),
        *machine.check_machine(here),
        *loads.check_loads(formats, vllm, asked=python is not None),
        *packages.check_forward(forward),
        *packages.check_vllm(vllm),
        *storage.check_caches(caches),
    ]
    return Examination(
        hyocr=__version__,
        python=platform.python_version(),
        executable=sys.executable,
        packages=tuple(found),
        extras=tuple(extras),
        plugins=tuple(plugins),
        forward=forward,
        vllm=vllm,
        machine=here,
        formats=tuple(formats),
        caches=tuple(caches),
        problems=tuple(sorted(problems, key=lambda problem: not problem.broken)),
    )


def _find_plugins() -> list[Plugin]:
    methods = [(entry, fault_of(entry, load_method)) for entry in installed_methods()]
    observers = [(entry, fault_of(entry, load_observer)) for entry in installed_observers()]
    formats = [(entry, fault_of(entry, load_format)) for entry in installed_formats()]
    return [
        Plugin(
            kind=entry.kind, name=entry.name, distribution=entry.distribution, version=entry.version, problem=problem
        )
        for entry, problem in (*methods, *observers, *formats)
    ]


def _check_plugins(plugins: list[Plugin]) -> Iterator[Problem]:
    for plugin in plugins:
        if plugin.problem is not None:
            about = f"{plugin.kind} {plugin.name} ({plugin.distribution} {plugin.version})"
            advice = f"{plugin.problem}; if that stays: pip uninstall {plugin.distribution}"
            yield Problem(broken=False, about=about, advice=advice)
    if not any(plugin.kind == "method" and plugin.problem is None for plugin in plugins):
        yield Problem(
            broken=True,
            about="methods",
            advice="none works: pip install hyocr-plugin-gptq, or in a clone of the repository ./plugins/gptq",
        )
    if not any(plugin.kind == "format" and plugin.problem is None for plugin in plugins):
        yield Problem(broken=True, about="formats", advice="none works: pip install --force-reinstall hyocr-core")
