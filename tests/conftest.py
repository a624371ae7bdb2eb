"""Fixtures every test may use: the demo checkpoint, its data, and small edits of it."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tomllib
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from torch import Tensor

from hyocr_core import Batches, Block, Collected, MethodConfig, RunConfig
from hyocr_core.checkpoint.reader import digest
from hyocr_core.contract.page_source import Record
from hyocr_core.kit import threads
from hyocr_core.plugin.method import Method
from hyocr_core.plugin.registry import installed_methods
from hyocr_core.shown import LONGEST
from tests.evaluation.endpoint import Server

REPO = Path(__file__).parent.parent
DEMO = REPO / "examples" / "demo-ocr"

COMMIT = "0123456789abcdef0123456789abcdef01234567"
"""What `main` is in a cache that `lay_out_hub` fills."""

Edit = Callable[[dict[str, Tensor]], None]

METHODS = {"awq", "fp8", "gptq", "rtn"} <= {entry.name for entry in installed_methods()}
"""Whether the plugins of this repository are installed; the core has tests enough that need none."""


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("needs_methods") and not METHODS:
        pytest.skip("needs the methods of this repository, such as hyocr-plugin-gptq")


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For readers that are so small that a second thread costs more than it brings."""
    with threads.one_thread():
        yield


@pytest.fixture
def server() -> Iterator[Server]:
    """An endpoint on loopback."""
    running = Server()
    yield running
    running.close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What hyocr keeps in the user's cache goes to a folder of the test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name(f"{tmp_path.name}-cache")))


@pytest.fixture(autouse=True)
def harmless_messages(monkeypatch: pytest.MonkeyPatch) -> None:
    """No line that a command shows in any test holds a control character, and no message more than 400 characters."""
    invoke = CliRunner.invoke

    def watched(self: CliRunner, *arguments: Any, **options: Any) -> Result:
        result = invoke(self, *arguments, **options)
        # Bars of libraries go back to the start of their line, and a traceback, for which -v asks, is no message.
        own = [line for line in result.stderr.split("\n") if "\r" not in line]
        shown = result.stdout + "".join(own)
        assert not [mark for mark in shown if unicodedata.category(mark) in ("Cc", "Cs") and mark not in "\n\t"], shown
        if "Traceback (most recent call last)" not in result.stderr:
            assert max(map(len, own), default=0) <= LONGEST, result.stderr
        return result

    monkeypatch.setattr(CliRunner, "invoke", watched)


@pytest.fixture(scope="session")
def demo() -> Path:
    """The trained demo checkpoint; read only."""
    return DEMO / "checkpoint"


@pytest.fixture(scope="session")
def calib() -> str:
    return str(DEMO / "data" / "calib.jsonl")


@pytest.fixture(scope="session")
def heldout() -> str:
    return str(DEMO / "data" / "heldout.jsonl")


@pytest.fixture
def hub_cache(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face cache that holds the demo model as tencent/HunyuanOCR."""
    return lay_out_hub(demo, tmp_path_factory.mktemp("hub"))


def lay_out_hub(model: Path, cache: Path, revision: str = COMMIT, ref: str = "main") -> Path:
    """Put a model, with the folders in it, into a cache as the hub's client does, under the name tencent/HunyuanOCR."""
    repo = cache / "models--tencent--HunyuanOCR"
    snapshot = repo / "snapshots" / revision
    for folder in (snapshot, repo / "refs", repo / "blobs"):
        folder.mkdir(parents=True, exist_ok=True)
    (repo / "refs" / ref).write_text(revision)
    for path in model.rglob("*"):
        if path.is_file():
            blob = repo / "blobs" / digest(path)
            shutil.copy(path, blob)
            link = snapshot / path.relative_to(model)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return cache


@pytest.fixture
def edited_demo(demo: Path, tmp_path: Path) -> Callable[[Edit], Path]:
    """Copies the demo checkpoint after an edit of its tensors."""

    def copy(edit: Edit) -> Path:
        folder = tmp_path / "edited"
        shutil.copytree(demo, folder)
        tensors = load_file(folder / "model.safetensors")
        edit(tensors)
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return copy


@pytest.fixture
def demo_config(demo: Path) -> dict[str, object]:
    loaded = json.loads((demo / "config.json").read_text(encoding="utf-8"))
    assert isinstance(loaded, dict)
    return loaded


class PluginFolder:
    """A folder on sys.path, also of child processes, with distributions as pip lays them out; needs no network."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def toy(self) -> None:
        """Install tests/distributions/toy from its pyproject.toml."""
        self.distribution("toy")

    def distribution(self, name: str, *, leave_out: str = "") -> None:
        """Install tests/distributions/NAME from its pyproject.toml, but for the entry points of one group."""
        source = REPO / "tests" / "distributions" / name
        project = tomllib.loads((source / "pyproject.toml").read_text(encoding="utf-8"))["project"]
        shutil.copytree(source / "src", self.folder, dirs_exist_ok=True)
        groups = {group: points for group, points in project["entry-points"].items() if group != leave_out}
        self.info(project["name"], project["version"], groups, project["description"])

    def hostile(self, name: str, *, method: str | None = None) -> None:
        """Install hostile/NAME.py as `hyocr-plugin-NAME 0.0.1`, beside the toy that it borrows from."""
        self.toy()
        source = (REPO / "tests" / "distributions" / "hostile" / f"{name}.py").read_text(encoding="utf-8")
        self.module(name, source, value=f"hostile_{name}:Plugin" if name == "names_a_class" else None, method=method)

    def module(self, name: str, source: str, *, method: str | None = None, value: str | None = None) -> None:
        """Install a module `hostile_NAME` as `hyocr-plugin-NAME 0.0.1` with one entry point."""
        (self.folder / f"hostile_{name}.py").write_text(source, encoding="utf-8")
        distribution = f"hyocr-plugin-{name.replace('_', '-')}"
        self.metadata(distribution, "0.0.1", {method or name: value or f"hostile_{name}"}, "hostile")

    def metadata(
        self, distribution: str, version: str, points: dict[str, str], summary: str, group: str = "hyocr.methods"
    ) -> None:
        """Write the .dist-info of a distribution with entry points of one group."""
        self.info(distribution, version, {group: points}, summary)

    def info(self, distribution: str, version: str, groups: dict[str, dict[str, str]], summary: str) -> None:
        """Write the .dist-info of a distribution."""
        info = self.folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        fields = {"Metadata-Version": "2.1", "Name": distribution, "Version": version, "Summary": summary}
        lines = [f"{key}: {value}\n" for key, value in fields.items()]
        (info / "METADATA").write_text("".join(lines), encoding="utf-8")
        lines = [
            line
            for group, points in groups.items()
            for line in (f"[{group}]", *(f"{name} = {value}" for name, value in points.items()))
        ]
        (info / "entry_points.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
        importlib.invalidate_caches()


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[PluginFolder]:
    """Installs plugins for one test; their modules are forgotten afterwards."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    before = set(sys.modules)
    yield PluginFolder(folder)
    for name in set(sys.modules) - before:
        if name.startswith(
            ("hostile_", "hyocr_plugin_toy", "hyocr_plugin_gptaq", "hyocr_plugin_smoothquant", "hyocr_format_")
        ):
            del sys.modules[name]


@pytest.fixture(scope="session")
def stop_in_block_2() -> Callable[[RunConfig], None]:
    """Begins a run and stops it by Ctrl-C."""
    from hyocr_core.run.quantize import quantize

    def begin(run: RunConfig) -> None:
        calibrate = Method.calibrate

        def stop(self: Method, block: Block, batches: Batches, config: MethodConfig) -> dict[str, Collected]:
            if block.index == 2:
                raise KeyboardInterrupt
            return calibrate(self, block, batches, config)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Method, "calibrate", stop)
            with pytest.raises(KeyboardInterrupt):
                quantize(run)

    return begin


@pytest.fixture(scope="session")
def processor() -> Any:
    """The demo's."""
    from hyocr_core.pages.processor import load_processor

    return load_processor(DEMO / "checkpoint")


@pytest.fixture(scope="session")
def tiny(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights with the demo's tokenizer and processor; see `tests.tiny`."""
    from tests.tiny import save_tiny

    return save_tiny(demo, tmp_path_factory.mktemp("tiny") / "model")


@pytest.fixture
def pages() -> Callable[..., list[Record]]:
    """Pages of random pixels in two sizes."""
    from tests.tiny import page

    def make(count: int, answer: str | None = "abc def") -> list[Record]:
        return [page(index, answer) for index in range(count)]

    return make
