"""What is killed: every method, and every way through a run that keeps files of its own."""

from __future__ import annotations

from pathlib import Path

from tests.soak.commands import WORK

PAGES = ["--calib", "synthetic:2", "--num-samples", "2", "--device", "cpu"]
GROUPS = ["-o", "group_size=32"]
READS = ["--eval", "synthetic:3", "--max-new-tokens", "4"]

SCENARIOS: dict[str, list[str]] = {
    "rtn": ["--method", "rtn", *GROUPS],
    "fp8": ["--method", "fp8", *PAGES],
    "awq": ["--method", "awq", *PAGES, *GROUPS],
    "gptq": ["--method", "gptq", *PAGES, *GROUPS],
    "gptq --spill": ["--method", "gptq", *PAGES, *GROUPS, "--spill"],
    "gptq quant_vit": ["--method", "gptq", *PAGES, *GROUPS, "-o", "quant_vit=true"],
    "awq quant_vit --spill": ["--method", "awq", *PAGES, *GROUPS, "-o", "quant_vit=true", "--spill"],
    "gptq --answers generate": ["--method", "gptq", *PAGES, *GROUPS, "--answers", "generate", "--max-new-tokens", "4"],
    "gptq --gate that holds": ["--method", "gptq", *PAGES, *GROUPS, *READS, "--gate", "loops=3,agreement=0"],
    "fp8 --gate that fails": ["--method", "fp8", *PAGES, *READS, "--gate", "kl=1e-12"],
}


def command(name: str, model: Path, folder: Path) -> list[str]:
    """The command line of a scenario; its output is `out` below the trial's work folder."""
    return ["quant", "--model", str(model), "--output", str(folder / WORK / "out"), *SCENARIOS[name]]
