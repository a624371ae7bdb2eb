"""What the quality benchmark compares: methods of hyocr with options, and other tools at settings of theirs."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import click
import torch

from hyocr_core.contract.backend import Forward
from hyocr_core.errors import RunError
from hyocr_core.plugin.registry import load_method
from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig
from hyocr_core.settings.run_file import parse_override

PEERS = Path(__file__).parent / "peers"
EVERY = 1 << 30  # lines of a file: all there are

OWN = (
    "rtn",
    "rtn mse=false",
    "gptq",
    "gptq mse=false",
    "gptq desc_act=false",
    "gptq target_strength=0",
    "gptq target_strength=1",
    "gptq refine=1",
    "gptq format=compressed-tensors sym=false",
    "gptq bits=8",
    "awq",
    "awq rounding=nearest",
    "awq mse_range=true",
    "awq search=module",
    "awq bits=8",
    "fp8",
    "fp8 observer=mse",
    "fp8 weight_strategy=channel",
    "fp8 activation_scheme=dynamic",
)
"""Method and options, as `hyocr quant --method` and `-o` take them. A method alone is its default."""

OF_DOCUMENTS = ("rtn", "gptq", "rtn in 3 bits", "gptq in 3 bits", "rtn in 2 bits", "gptq in 2 bits")
"""What is measured on documents, where metrics by part have to see a harm."""

OTHERS = {
    "llmcompressor": ("gptq", "awq", "fp8"),
    "gptqmodel": ("gptq", "gptq-best", "gptq-best-served", "awq"),
}
"""Tool -> settings of its script below peers/."""


@dataclass(frozen=True)
class Given:
    """A checkpoint, the file of the lines with which it is quantized, all of them, and the forward they go through."""

    checkpoint: Path
    lines: Path
    forward: Forward


class Candidate(Protocol):
    """What writes a quantized checkpoint.

    default: the candidate with which it is compared on the same draws. calibrated: whether it looks at the lines.
    code: changes with everything else on which the result depends.
    """

    name: str
    default: str
    calibrated: bool
    code: str

    def quantize(self, given: Given, output: Path) -> None:
        """Write the checkpoint."""


class Own:
    """A method of hyocr with options. name: as in OWN."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._method, *options = name.split()
        self.default = self._method
        self._options: dict[str, Any] = dict(map(parse_override, options))
        method = load_method(self._method)
        config = method.config(self._options, name)
        self.calibrated = method.spec.needs_calibration and config.needs_calibration
        self.code = code_digest("hyocr_core", method.entry.value.partition(".")[0])

    def quantize(self, given: Given, output: Path) -> None:
        """Write the checkpoint, here."""
        run = {"model": str(given.checkpoint), "output": output, "method": self._method, "options": self._options}
        pages = {"calib": str(given.lines), "keep_duplicates": True, "num_samples": EVERY, "forward": given.forward}
        quantize(RunConfig.model_validate({**run, **pages, "device": "cpu"}))


class FewBits(Own):
    """A method of the plugin gptq whose codes have fewer bits than its format, which no runtime has a kernel for.

    The format stores a zero point for every group, so that it holds such codes as they are.
    """

    def __init__(self, method: str, bits: int) -> None:
        super().__init__(f"{method} format=compressed-tensors sym=false")
        self.name, self.default, self._bits = f"{method} in {bits} bits", f"rtn in {bits} bits", bits

    def quantize(self, given: Given, output: Path) -> None:
        """Write the checkpoint, here."""
        from hyocr_plugin_gptq import layers

        with ExitStack() as patched:
            for name in ("fit_grid", "fit_grid_by_solving"):
                patched.enter_context(patch.object(layers, name, self._coarser(getattr(layers, name))))
            super().quantize(given, output)

    def _coarser(self, fit: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(fit)
        def coarser(*arguments: Any, **named: Any) -> Any:
            return fit(*arguments, **named | {"bits": self._bits})

        return coarser


def named(name: str) -> Own:
    """The candidate of a name: method and options, or `METHOD in N bits`."""
    method, found, rest = name.partition(" in ")
    return FewBits(method, int(rest.removesuffix(" bits"))) if found else Own(name)


class Peer:
    """Another tool, run by a Python that has it; it computes Transformers' forward, whatever is asked for."""

    def __init__(self, tool: str, setting: str, python: Path) -> None:
        self.name, self._setting, self._python = f"{tool} {setting}", setting, python
        self.default, self.calibrated = setting.partition("-")[0], True
        self._script = PEERS / f"with_{tool}.py"
        self.version = self._run("-c", f"import importlib.metadata as m; print(m.version({tool!r}))").strip()
        sources = (self._script, PEERS / "peer.py", PEERS / "saved.py")
        self.code = hashlib.sha256(self.version.encode() + b"".join(path.read_bytes() for path in sources)).hexdigest()

    def quantize(self, given: Given, output: Path) -> None:
        """Write the checkpoint, in a process of its own. Raises RunError with the last line that it said."""
        paths = ["--model", str(given.checkpoint), "--calib", str(given.lines), "--output", str(output)]
        self._run(str(self._script), *paths, "--setting", self._setting)

    def _run(self, *arguments: str) -> str:
        done = subprocess.run([str(self._python), *arguments], capture_output=True, text=True, check=False)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["says nothing"]
            raise RunError(f"{self.name}: {self._python} ends with {done.returncode}: {said[-1]}")
        return done.stdout


def code_digest(*packages: str) -> str:
    """Of all source files of packages, and torch: what was measured with other code does not count."""
    digest = hashlib.sha256(torch.__version__.encode())
    for package in packages:
        spec = find_spec(package)
        for folder in (spec.submodule_search_locations or ()) if spec else ():
            for path in sorted(Path(folder).rglob("*.py")):
                digest.update(path.read_bytes())
    return digest.hexdigest()


def peers(pythons: Mapping[str, Path | None]) -> Iterator[Peer]:
    """Every setting of the tools that are here; a line on stderr for each that is not. pythons: tool -> its Python."""
    for tool, settings in OTHERS.items():
        python = pythons[tool]
        if python is None:
            click.echo(f"left out {tool}: no --{tool} PYTHON was given", err=True)
            continue
        # An environment's python is a link that must not be resolved, or it is the system's.
        yield from (Peer(tool, setting, python.absolute()) for setting in settings)
