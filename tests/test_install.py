"""A plugin beside the core alone: it comes, passes its tests, is upgraded and goes; a new one of the template too."""

from __future__ import annotations

import json
import re
import shutil
import site
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from hyocr_core.doctor.packages import READS

ROOT = Path(__file__).parents[1]
VLLM_ALLOWS = {
    "vllm 0.32": {"transformers": ">=5.16.1,<5.20.0", "huggingface-hub": ">=1.31.0", "pillow": ">=12.3.0"},
    "vllm 0.33": {"transformers": ">=5.16.1,<5.21.0"},
}
"""Of the metadata of these, bounds on what hyocr-core asks for too."""
OFFERS = {"awq": {"awq"}, "fp8": {"fp8"}, "gguf": {"gguf"}, "gptq": {"gptq", "rtn"}}


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

    def install(self, *arguments: str) -> None:
        self.pip("install", "--no-deps", "--no-index", "--no-build-isolation", *arguments)

    def run_tests(self, path: str | Path) -> None:
        """Run a plugin's own tests, which see nothing of this repository but the core and the plugin."""
        command: list[str | Path] = [self._bin / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
        subprocess.run(command, check=True, cwd=ROOT, stdin=subprocess.DEVNULL)

    def hyocr(self, *arguments: str | Path) -> str:
        command: list[str | Path] = [self._bin / "hyocr", *arguments]
        return subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True).stdout

    def methods(self) -> dict[str, str]:
        """Name and version of what `hyocr methods` lists; each must also be sound."""
        self.hyocr("methods", "check")
        return {entry["name"]: entry["version"] for entry in json.loads(self.hyocr("methods", "--json"))}


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment(tmp_path_factory.mktemp("environment"))
    made.install(".")
    return made


def test_every_plugin_of_the_repository_is_tried() -> None:
    assert {*OFFERS, "vllm"} == {path.parent.name for path in ROOT.glob("plugins/*/pyproject.toml")}


def test_hyocr_all_brings_the_core_its_methods_and_every_extra_that_reads() -> None:
    meta = tomllib.loads((ROOT / "meta/pyproject.toml").read_text())["project"]
    needed = {Requirement(text).name for text in meta["dependencies"]}
    assert needed >= {"hyocr-core", *(f"hyocr-plugin-{name}" for name in ("awq", "fp8", "gptq"))}
    (everything,) = map(Requirement, meta["optional-dependencies"]["all"])
    own = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert everything.name == "hyocr-core"
    assert everything.extras == set(own) - {"dev", "docs", "gpu", "testing"} == {*READS, "search"}


def test_hyocr_installs_beside_the_core(environment: Environment) -> None:
    environment.install("./meta")
    environment.pip("uninstall", "--yes", "hyocr")


@pytest.mark.parametrize(
    "plugin", [name if name == "gptq" else pytest.param(name, marks=pytest.mark.release) for name in OFFERS]
)
def test_a_plugin_comes_passes_its_tests_is_upgraded_and_goes(
    plugin: str, environment: Environment, tmp_path: Path
) -> None:
    assert environment.methods() == {}
    environment.install(f"./plugins/{plugin}")
    found = environment.methods()
    assert found.keys() == OFFERS[plugin]
    environment.run_tests(f"plugins/{plugin}/tests")
    newer = shutil.copytree(ROOT / "plugins" / plugin, tmp_path / plugin)
    [version] = newer.glob("src/*/__init__.py")
    version.write_text(re.sub('__version__ = ".*"', '__version__ = "99.0.0"', version.read_text()))
    environment.install("--upgrade", str(newer))
    assert environment.methods() == dict.fromkeys(OFFERS[plugin], "99.0.0") != found
    environment.pip("uninstall", "--yes", f"hyocr-plugin-{plugin}")
    assert environment.methods() == {}


def test_what_is_for_vllm_comes_passes_its_tests_and_goes(environment: Environment) -> None:
    environment.install("./plugins/vllm")
    assert environment.methods() == {}
    environment.run_tests("plugins/vllm/tests")
    environment.pip("uninstall", "--yes", "hyocr-vllm")


def test_a_new_method_works_and_passes_the_kit_at_once(environment: Environment, demo: Path, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    environment.hyocr("methods", "new", "my-method", "--output", folder)
    environment.install("-e", str(folder))
    try:
        assert environment.methods() == {"my-method": "0.1.0"}
        environment.run_tests(folder)
        output = tmp_path / "out"
        environment.hyocr("quant", "--method", "my-method", "--model", demo, "--output", output)
        environment.hyocr("verify", output, "--original", demo)
    finally:
        environment.pip("uninstall", "--yes", "hyocr-plugin-my-method")


def own_needs() -> dict[str, SpecifierSet]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [Requirement(need) for need in project["dependencies"]]
    return {need.name.replace("_", "-"): need.specifier for need in needs}


def test_the_core_changes_nothing_in_the_environment_of_vllm() -> None:
    """pip leaves alone what is there and fits: all that `make clients` installs for vLLM does."""
    pins = (ROOT / "tests/clients/requirements.txt").read_text().splitlines()
    there = dict(pin.split("==") for pin in pins if "==" in pin)
    needs = own_needs()
    shared = needs.keys() & there.keys()
    assert {"torch", "transformers", "huggingface-hub", "numpy", "pillow", "pydantic", "safetensors"} <= shared
    for name in shared:
        assert needs[name].contains(there[name]), f"{name}{needs[name]} would change {there[name]}"


@pytest.mark.parametrize("vllm", VLLM_ALLOWS)
def test_the_core_asks_for_no_more_than_vllm(vllm: str) -> None:
    """Whatever vLLM takes, from its oldest pin on."""
    for name, allowed in VLLM_ALLOWS[vllm].items():
        lowest = next(each.version for each in SpecifierSet(allowed) if each.operator == ">=")
        assert own_needs()[name].contains(lowest), name
