"""Processor, GPU and memory."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import psutil

from hyocr_core.doctor.findings import Cpu, Gpu, Machine, Problem
from hyocr_core.errors import one_line
from hyocr_core.resources import GB, free_memory, processor, size

CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")
FEATURES = {
    "avx2": "AVX2",
    "avx512f": "AVX512",
    "avx512_bf16": "AVX512_BF16",
    "amx_bf16": "AMX",
    "asimd": "NEON",
    "sve": "SVE",
    "bf16": "BF16",
}
"""Flags of /proc/cpuinfo, of x86 and of ARM, that torch and vLLM have kernels for."""
NVIDIA = Path("/proc/driver/nvidia/version")
JOB_BYTES = 2 * GB
"""The peak of a job on HunyuanOCR; see benchmarks/README.md."""


def find_machine() -> tuple[Machine, list[Problem]]:
    """Look at the machine; a torch that cannot be imported is one of the problems."""
    problems = []
    torch: ModuleType | None = None
    try:
        import torch
    except (ImportError, OSError) as error:
        advice = f"cannot be imported ({one_line(error, named=True)}): install it again"
        problems.append(Problem(broken=True, about="torch", advice=advice))
    model, flags = processor()
    machine = Machine(
        platform=platform.platform(),
        cpu=Cpu(
            model=model or platform.processor() or platform.machine(),
            cores=usable_cores(),
            threads=None if torch is None else torch.get_num_threads(),
            features=tuple(name for flag, name in FEATURES.items() if flag in flags),
        ),
        gpus=() if torch is None else tuple(_gpus(torch)),
        cuda=None if torch is None else torch.version.cuda,
        memory_bytes=int(psutil.virtual_memory().total),
        free_memory_bytes=free_memory(),
    )
    return machine, problems


def usable_cores() -> int:
    """The cores that this process may use, which in a container are fewer than the machine has."""
    cores = len(os.sched_getaffinity(0))
    try:
        quota, period = CPU_QUOTA.read_text(encoding="utf-8").split()
        return min(cores, max(1, round(int(quota) / int(period))))
    except (OSError, ValueError):  # there is none, or no limit: `max`
        return cores


def check_machine(machine: Machine) -> Iterator[Problem]:
    """Say what makes hyocr slow or fail here."""
    cpu = machine.cpu
    if cpu.threads is not None and cpu.threads > cpu.cores:
        advice = (
            f"torch uses {cpu.threads} on {cpu.cores} cores, which is slower than one each: OMP_NUM_THREADS={cpu.cores}"
        )
        yield Problem(broken=False, about="threads", advice=advice)
    if machine.cuda is not None and not machine.gpus:
        advice = f"torch is built for CUDA {machine.cuda} and sees none, the CPU does the work; is nvidia-smi content?"
        yield Problem(broken=False, about="GPU", advice=advice)
    if machine.cuda is None and cpu.threads is not None and NVIDIA.exists():
        advice = "there is one, but torch is built for the CPU: install one for CUDA, see https://pytorch.org"
        yield Problem(broken=False, about="GPU", advice=advice)
    if machine.free_memory_bytes < JOB_BYTES:
        free = size(machine.free_memory_bytes)
        advice = f"{free} are free, quantizing HunyuanOCR takes about {size(JOB_BYTES)}: close other programs"
        yield Problem(broken=False, about="memory", advice=advice)


def _gpus(torch: ModuleType) -> Iterator[Gpu]:
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        yield Gpu(name=found.name, memory_bytes=found.total_memory, capability=f"{found.major}.{found.minor}")
