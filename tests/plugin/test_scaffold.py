"""`hyocr methods new`: what it writes, and what it refuses. That what it writes works is shown in test_install.py."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from hyocr_core import API_VERSION, __version__
from hyocr_core.cli.main import main

pytestmark = pytest.mark.needs_methods


def new(*arguments: str) -> tuple[int, str, str]:
    done = CliRunner().invoke(main, ["methods", "new", *arguments])
    return done.exit_code, done.stdout, done.stderr


def test_the_distribution_is_complete_and_named_after_the_method(tmp_path: Path) -> None:
    folder = tmp_path / "made"
    code, out, _ = new("half-quadratic", "--output", str(folder))
    assert (code, out.strip()) == (0, str(folder))
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["name"] == "hyocr-plugin-half-quadratic"
    assert project["entry-points"]["hyocr.methods"] == {"half-quadratic": "hyocr_plugin_half_quadratic.plugin"}
    package = folder / "src/hyocr_plugin_half_quadratic"
    names = {path.name for path in package.iterdir()}
    assert names == {"__init__.py", "config.py", "plugin.py", "py.typed", "quantizer.py"}
    assert (folder / ".github/workflows/test.yml").is_file()
    assert "class HalfQuadraticConfig(MethodConfig):" in (package / "config.py").read_text()
    assert f"api_version={API_VERSION}," in (package / "plugin.py").read_text()
    for path in folder.rglob("*"):
        if path.is_file():
            assert "{{" not in path.read_text().replace("${{", "")
            compile(path.read_text(), str(path), "exec") if path.suffix == ".py" else None


def test_the_requirement_on_the_core_admits_this_core(tmp_path: Path) -> None:
    from packaging.requirements import Requirement

    new("mine", "--output", str(tmp_path / "made"))
    project = tomllib.loads((tmp_path / "made/pyproject.toml").read_text())["project"]
    needed = Requirement(project["dependencies"][0])
    assert needed.name == "hyocr-core"
    assert __version__ in needed.specifier
    major, minor, _ = __version__.split(".")
    assert f"{major}.{int(minor) + 1}.0" not in needed.specifier


@pytest.mark.parametrize("name", ["My", "a_b", "-a", "a-", "a--b", "1a", "a/b", "../a", "", "ä"])
def test_a_name_that_cannot_be_one_is_refused(name: str, tmp_path: Path) -> None:
    code, out, err = new("--output", str(tmp_path / "made"), "--", name)
    assert code == 2
    assert out == ""
    assert "cannot be a method's name" in err
    assert not (tmp_path / "made").exists()


def test_a_name_that_is_taken_is_refused(tmp_path: Path) -> None:
    code, _, err = new("gptq", "--output", str(tmp_path / "made"))
    assert code == 2
    assert "hyocr-plugin-gptq offers a method gptq already" in err


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_nothing_of_the_users_is_overwritten(kind: str, tmp_path: Path) -> None:
    own = tmp_path / "made" / "own.txt" if kind == "folder" else tmp_path / "made"
    own.parent.mkdir(exist_ok=True)
    own.write_text("mine")
    code, _, err = new("mine", "--output", str(tmp_path / "made"))
    assert code == 2
    assert "not empty" in err
    assert own.read_text() == "mine"


def test_the_default_folder_is_named_after_the_distribution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = new("mine")
    assert (code, out.strip()) == (0, "hyocr-plugin-mine")
    assert "pip install -e 'hyocr-plugin-mine[test]'" in err
