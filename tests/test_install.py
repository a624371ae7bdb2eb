"""A plugin beside the core and nothing else: it adds its methods, passes its tests, and takes its methods away."""

from __future__ import annotations

import json
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
OFFERS = {"awq": {"awq"}, "fp8": {"fp8"}, "gptq": {"gptq", "rtn"}}


class Environment:
    """A virtual environment with everything this one has but hyocr and what leads to it."""

    def __init__(self, folder: Path) -> None:
        venv.create(folder, with_pip=False)
        self._bin = folder / "bin"
        own = Path(site.getsitepackages()[0])
        target = folder / own.relative_to(sys.prefix)
        for entry in own.iterdir():
            # Editable installations are .pth files and finder modules, with hyocr in their names.
            if "hyocr" not in entry.name and not (target / entry.name).exists():
                (target / entry.name).symlink_to(entry)

    def pip(self, *arguments: str) -> None:
        subprocess.run(
            [self._bin / "python", "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments],
            check=True,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )

    def install(self, path: str) -> None:
        self.pip("install", "--no-deps", "--no-index", "--no-build-isolation", path)

    def run_tests(self, path: str) -> None:
        """Run a plugin's own tests, which see nothing of this repository but the core and the plugin."""
        subprocess.run(
            [self._bin / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", path],
            check=True,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
        )

    def methods(self) -> set[str]:
        """What `hyocr methods` lists; each must also be sound."""
        listed = subprocess.run([self._bin / "hyocr", "methods", "--json"], check=True, capture_output=True, text=True)
        subprocess.run([self._bin / "hyocr", "methods", "check"], check=True, capture_output=True)
        return {entry["name"] for entry in json.loads(listed.stdout)}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment"))
    made.install(".")
    return made


def test_every_plugin_of_the_repository_is_tried() -> None:
    assert set(OFFERS) == {path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")}


@pytest.mark.parametrize("plugin", OFFERS)
def test_a_plugin_comes_passes_its_tests_and_goes(plugin: str, environment: Environment) -> None:
    assert environment.methods() == set()
    environment.install(f"./plugins/{plugin}")
    assert environment.methods() == OFFERS[plugin]
    environment.run_tests(f"plugins/{plugin}/tests")
    environment.pip("uninstall", "--yes", f"hyocr-plugin-{plugin}")
    assert environment.methods() == set()
