"""Everything that has to hold before the distributions are uploaded; what the release workflow runs first.

Builds wheels and sdists, looks at what is in them, and installs the wheels, and nothing else of this repository, into
new environments: the core alone, each plugin alone with its own tests, and all together, as `hyocr[all]` asks for them,
with the oldest and the newest versions of what they need. Exit code 1 at the first thing that does not hold; what it
says last names it.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from email import message_from_bytes
from email.message import Message
from pathlib import Path

import click

ROOT = Path(__file__).parents[1]
DEMO = ROOT / "examples/demo-ocr"
BIN = Path(sys.executable).parent
NOT_ALONE = ("clients", "docs", "test_habits.py", "test_house.py", "test_install.py")
"""Tests of the core together with its plugins or with vLLM, and of the repository itself."""

VERSION_LINE = re.compile(r"^## (\d+\.\d+\.\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Project:
    """One distribution of this repository. folder: where its pyproject.toml is. code: whether it has any of its own."""

    folder: Path
    name: str
    code: bool = True

    @property
    def import_name(self) -> str:
        return self.name.replace("-", "_")


META = Project(ROOT / "meta", "hyocr", code=False)
"""Asks for the others."""


def projects() -> list[Project]:
    """The core first, then the plugins."""
    folders = [ROOT, *sorted(path.parent for path in ROOT.glob("plugins/*/pyproject.toml"))]
    return [
        Project(folder, tomllib.loads((folder / "pyproject.toml").read_text())["project"]["name"]) for folder in folders
    ]


def run(*command: str | Path, cwd: Path | None = None) -> str:
    """Run a command, away from the checkout unless `cwd` is given; return its stdout."""
    with tempfile.TemporaryDirectory() as away:
        done = subprocess.run(
            [str(part) for part in command],
            cwd=cwd or away,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        sys.stderr.write(done.stdout + done.stderr)
        raise click.ClickException(f"exit code {done.returncode}: {' '.join(map(str, command))}")
    return done.stdout


def _environment() -> dict[str, str]:
    found = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "VIRTUAL_ENV")}
    # uv reads none of pip's settings.
    for name in ("FIND_LINKS", "INDEX_URL", "EXTRA_INDEX_URL"):
        if f"PIP_{name}" in found:
            found.setdefault(f"UV_{name}", found[f"PIP_{name}"])
    return found | {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}


def build(project: Project, dist: Path) -> tuple[Path, Path]:
    """Return the wheel, built from the sdist as pip would build it, and the sdist."""
    before = set(dist.iterdir())
    run(BIN / "python", "-m", "build", "--outdir", dist, project.folder)
    made = set(dist.iterdir()) - before
    return next(path for path in made if path.suffix == ".whl"), next(
        path for path in made if path.name.endswith(".gz")
    )


def check_contents(project: Project, wheel: Path, sdist: Path) -> str:
    """Check what is in the files; return the version."""
    run(BIN / "twine", "check", "--strict", wheel, sdist)
    if project.code:
        run(BIN / "check-wheel-contents", "--toplevel", project.import_name, wheel)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        metadata = message_from_bytes(
            archive.read(next(name for name in names if name.endswith(".dist-info/METADATA")))
        )
    with tarfile.open(sdist) as archive:
        stored = [name.partition("/")[2] for name in archive.getnames()]
    _demand(project, not project.code or f"{project.import_name}/py.typed" in names, "its wheel has no py.typed")
    _demand(project, any(name.endswith("licenses/LICENSE") for name in names), "its wheel has no LICENSE")
    missing = {"LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml"} - set(stored)
    _demand(project, not missing, f"its sdist lacks {', '.join(sorted(missing))}")
    _check_metadata(project, metadata)
    return str(metadata["Version"])


def _check_metadata(project: Project, metadata: Message) -> None:
    classifiers = metadata.get_all("Classifier", [])
    _demand(project, not project.code or "Typing :: Typed" in classifiers, "it has no classifier Typing :: Typed")
    _demand(project, metadata["License-Expression"] == "Apache-2.0", "its licence expression is not Apache-2.0")
    labels = {url.partition(",")[0] for url in metadata.get_all("Project-URL", [])}
    _demand(project, {"Source", "Changelog", "Documentation"} <= labels, f"its project URLs are only {sorted(labels)}")
    newest = VERSION_LINE.search((project.folder / "CHANGELOG.md").read_text())
    stated = newest.group(1) if newest else None
    _demand(
        project, stated == metadata["Version"], f"CHANGELOG.md ends at {stated}, the version is {metadata['Version']}"
    )


def oldest(package: str) -> str:
    """The lowest version of a package that the core's own pyproject.toml allows."""
    needs = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return next(str(need).removeprefix(f"{package}>=") for need in needs if need.startswith(f"{package}>="))


def _demand(project: Project, holds: bool, problem: str) -> None:
    if not holds:
        raise click.ClickException(f"{project.name}: {problem}")


class Environment:
    """A new virtual environment with torch and nothing else."""

    def __init__(self, folder: Path, torch: str) -> None:
        self.bin = folder / "bin"
        run(BIN / "uv", "venv", "--quiet", "--seed", "--clear", "--python", sys.executable, folder)
        # By pip, whose options TORCH may carry.
        run(BIN / "python", "-m", "pip", "--quiet", "--python", folder / "bin/python", "install", *torch.split())
        self._pin = folder / "torch.txt"
        self._pin.write_text(next(line for line in self._freeze() if line.startswith("torch==")) + "\n")

    def _freeze(self) -> list[str]:
        return run(BIN / "uv", "pip", "freeze", "--python", self.bin / "python").splitlines()

    def install(self, wheels: Sequence[Path | str], *options: str | Path) -> None:
        """Install wheels with what they need."""
        pinned = ("--constraint", self._pin, *options)
        run(BIN / "uv", "pip", "install", "--quiet", "--python", self.bin / "python", *pinned, *wheels)
        run(BIN / "uv", "pip", "check", "--python", self.bin / "python")

    def hyocr(self, *arguments: str | Path) -> str:
        return run(self.bin / "hyocr", *arguments)

    def methods(self) -> set[str]:
        """What is installed and sound."""
        self.hyocr("methods", "check")
        return {entry["name"] for entry in json.loads(self.hyocr("methods", "--json"))}


def check_core_alone(environment: Environment, core: Path, scratch: Path, *options: str) -> None:
    """The core has no method, and passes all of its tests that need none, with no source of its own in reach.

    options: which versions of what it needs are installed.
    """
    environment.install([f"hyocr-core[dev] @ {core.as_uri()}", *options])
    if environment.methods():
        raise click.ClickException("hyocr-core alone offers methods")
    checkout = scratch / f"checkout-{environment.bin.parent.name}"
    shutil.copytree(ROOT, checkout, ignore=shutil.ignore_patterns("hyocr_core", ".*", "out", "__pycache__"))
    left_out = [f"--ignore=tests/{name}" for name in NOT_ALONE]
    run(
        environment.bin / "python",
        "-m",
        "pytest",
        "-q",
        "-n",
        "auto",
        "--dist=loadfile",
        "tests",
        *left_out,
        cwd=checkout,
    )


def check_plugin_alone(environment: Environment, project: Project, wheel: Path, core: Path, scratch: Path) -> None:
    """A plugin passes its own tests beside the core."""
    environment.install([f"hyocr-core @ {core.as_uri()}", f"{project.name}[test] @ {wheel.as_uri()}"])
    offered = tomllib.loads((project.folder / "pyproject.toml").read_text())["project"]["entry-points"]
    declared = offered.get("hyocr.methods", {})
    if environment.methods() != set(declared):
        raise click.ClickException(
            f"{project.name} offers {environment.methods()}, its entry points say {set(declared)}"
        )
    beside = shutil.copytree(
        project.folder, scratch / "beside" / project.name, ignore=shutil.ignore_patterns("src", ".*")
    )
    run(environment.bin / "python", "-m", "pytest", "-q", "--import-mode=importlib", "tests", cwd=beside)


def check_all(environment: Environment, wheels: Sequence[Path], meta: Path, resolution: str, scratch: Path) -> None:
    """All of them together quantize the demo checkpoint, and what they write is sound."""
    environment.install([*wheels, f"hyocr[all] @ {meta.as_uri()}"], "--resolution", resolution)
    output = scratch / f"{resolution}-demo"
    model = ("--model", DEMO / "checkpoint", "--calib", DEMO / "data/calib.jsonl", "--num-samples", "4")
    environment.hyocr("quant", "--method", "gptq", *model, "--output", output)
    environment.hyocr("verify", output, "--original", DEMO / "checkpoint")


@click.command(help=__doc__)
@click.option("--torch", default="torch", show_default=True, help="What pip installs as torch, with options.")
@click.option("--dist", type=click.Path(path_type=Path, file_okay=False), help="Keep the built files there.")
def main(torch: str, dist: Path | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        built = (dist or scratch / "dist").resolve()
        shutil.rmtree(built, ignore_errors=True)
        built.mkdir(parents=True)
        found = projects()
        wheels = []
        for project in (*found, META):
            wheel, sdist = build(project, built)
            click.echo(f"{project.name} {check_contents(project, wheel, sdist)}: built, contents in order", err=True)
            wheels.append(wheel)
        meta = wheels.pop()
        for transformers in (f"transformers=={oldest('transformers')}", "transformers"):
            check_core_alone(Environment(scratch / transformers, torch), wheels[0], scratch, transformers)
            click.echo(f"hyocr-core alone, {transformers}: installs, passes its own tests", err=True)
        for project, wheel in zip(found[1:], wheels[1:], strict=True):
            check_plugin_alone(Environment(scratch / project.name, torch), project, wheel, wheels[0], scratch)
            click.echo(f"{project.name} beside hyocr-core: installs, passes its own tests", err=True)
        for resolution in ("lowest-direct", "highest"):
            check_all(Environment(scratch / resolution, torch), wheels, meta, resolution, scratch)
            click.echo(f"all together, {resolution} versions: quantize the demo checkpoint", err=True)
    click.echo("ready to release")


if __name__ == "__main__":
    main()
