"""A method's `export` writes into the folder it was given, and nowhere else, whatever it writes with."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hyocr_core.errors import HookError, MethodError
from hyocr_core.plugin.registry import Method, load_method

if TYPE_CHECKING:
    from tests.conftest import PluginFolder

WHERE = "method odd (hyocr-plugin-odd 0.0.1), hook export: "
SOURCE = """
import os, shutil, subprocess, sys, tempfile
from pathlib import Path
from hyocr_core import ConfigError, MethodSpec, hookimpl
from hyocr_plugin_toy.plugin import ToyConfig, checkpoint_config, pack, quantize_layer, unpack

@hookimpl
def method_spec():
    return MethodSpec("odd", ToyConfig, "odd", api_version=1, needs_calibration=False)

@hookimpl
def export(checkpoint, folder, config):
"""


class Export:
    """A stage in which a method exports: stage/checkpoint beside stage/export, both below the same folder."""

    def __init__(self, stage: Path, plugins: PluginFolder) -> None:
        self.stage, self.checkpoint, self.folder = stage, stage / "checkpoint", stage / "export"
        self._plugins = plugins
        self.checkpoint.mkdir(parents=True)
        self.folder.mkdir()
        (self.checkpoint / "config.json").write_text("{}")
        (self.checkpoint / "model.safetensors").write_bytes(b"weights")

    def run(self, body: str) -> None:
        self._plugins.toy()
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        self._plugins.module("odd", SOURCE + lines)
        method: Method = load_method("odd")
        method.export(self.checkpoint, self.folder, method.config({}))

    def refusal(self, body: str) -> str:
        with pytest.raises(MethodError) as caught:
            self.run(body)
        assert caught.value.exit_code == 2
        assert str(caught.value).startswith(WHERE)
        return str(caught.value).removeprefix(WHERE)

    def contents(self) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in self.checkpoint.iterdir()}


@pytest.fixture
def export(tmp_path: Path, plugins: PluginFolder, monkeypatch: pytest.MonkeyPatch) -> Export:
    # Scratch files are allowed, and the tests' own folders would be among them.
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    return Export(tmp_path / "stage", plugins)


WRITES_INSIDE = """
(folder / "a" / "b").mkdir(parents=True)
(folder / "a" / "b" / "part.bin").write_bytes((checkpoint / "model.safetensors").read_bytes())
with open(folder / "draft", "w") as file:
    file.write("GGUF")
(folder / "draft").rename(folder / "model.gguf")
(folder / "rubbish").touch()
os.remove(folder / "rubbish")
os.chdir(folder)
Path("relative").write_text("x")
"""


def test_what_is_written_inside_is_kept(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(export.stage)
    before = export.contents()
    export.run(WRITES_INSIDE)
    found = {str(path.relative_to(export.folder)): path.read_bytes() for path in export.folder.rglob("*.*")}
    assert found == {"a/b/part.bin": b"weights", "model.gguf": b"GGUF"}
    assert (export.folder / "relative").read_text() == "x"
    assert export.contents() == before


@pytest.mark.parametrize(
    "body",
    [
        "with tempfile.TemporaryFile() as file:\n    file.write(b'x')",
        "with tempfile.NamedTemporaryFile() as file:\n    shutil.copy(file.name, folder / 'copy')",
        "with tempfile.TemporaryDirectory() as scratch:\n"
        "    (Path(scratch) / 'deep').mkdir()\n"
        "    (Path(scratch) / 'deep' / 'file').write_text('x')\n"
        "    shutil.move(Path(scratch) / 'deep' / 'file', folder / 'file')",
        "(folder / 'tree').mkdir(); (folder / 'tree' / 'file').touch(); shutil.rmtree(folder / 'tree')",
        "subprocess.run(['touch', folder / 'by-another-program'], check=True, stdout=subprocess.DEVNULL)",
        "import this_module_is_new",
        "from safetensors.numpy import save_file; import numpy\n"
        "save_file({'a': numpy.ones(3)}, folder / 'a.safetensors')",
    ],
)
def test_what_writing_a_file_takes_is_let_be(export: Export, plugins: PluginFolder, body: str) -> None:
    (plugins.folder / "this_module_is_new.py").write_text("x = 1\n")
    before = export.contents()
    export.run(body)
    assert export.contents() == before
    sys.modules.pop("this_module_is_new", None)


@pytest.mark.parametrize(
    ("body", "outside"),
    [
        ("open(folder.parent / 'log.txt', 'w')", "log.txt"),
        ("open(folder.parent / 'log.txt', 'a')", "log.txt"),
        ("open(str(folder / '..' / 'log.txt'), 'w')", "export/../log.txt"),
        ("os.open(folder.parent / 'log.txt', os.O_CREAT | os.O_WRONLY)", "log.txt"),
        ("(folder.parent / 'log.txt').write_text('x')", "log.txt"),
        ("(folder / 'x').touch(); (folder / 'x').rename(folder.parent / 'x')", "x"),
        ("(folder / 'x').touch(); os.replace(folder / 'x', folder.parent / 'x')", "x"),
        ("(folder / 'x').touch(); shutil.move(folder / 'x', folder.parent / 'x')", "x"),
        ("(folder / 'x').touch(); os.link(folder / 'x', folder.parent / 'x')", "x"),
        ("os.symlink(folder, folder.parent / 'x')", "x"),
        ("(folder.parent / 'x').mkdir()", "x"),
        ("open(checkpoint / 'extra.bin', 'wb')", "checkpoint/extra.bin"),
        ("open(checkpoint / 'config.json', 'r+')", "checkpoint/config.json"),
        ("(checkpoint / 'config.json').unlink()", "checkpoint/config.json"),
        ("os.truncate(checkpoint / 'model.safetensors', 0)", "checkpoint/model.safetensors"),
        ("shutil.copy(__file__, checkpoint)", "checkpoint/hostile_odd.py"),
        ("os.symlink(folder, checkpoint / 'x')", "checkpoint/x"),
        ("(folder / 'x').symlink_to(folder.parent); (folder / 'x' / 'log.txt').touch()", "export/x/log.txt"),
        ("os.remove('config.json', dir_fd=os.open(checkpoint, os.O_RDONLY))", "checkpoint/config.json"),
    ],
)
def test_what_python_writes_outside_is_refused_before_it_is_there(export: Export, body: str, outside: str) -> None:
    before = export.contents()
    found = export.refusal(body)
    assert found == f"wrote {export.stage / outside}, outside of the folder it was given"
    assert export.contents() == before
    assert sorted(path.name for path in export.stage.iterdir()) == ["checkpoint", "export"]


@pytest.mark.parametrize(
    ("body", "outside"),
    [
        ("subprocess.run(['touch', checkpoint / 'extra.bin'], check=True)", "checkpoint/extra.bin"),
        ("subprocess.run(['sh', '-c', f'echo x >> {checkpoint}/config.json'], check=True)", "checkpoint/config.json"),
        ("subprocess.run(['rm', checkpoint / 'config.json'], check=True)", "checkpoint/config.json"),
        ("subprocess.run(['touch', folder.parent / 'log.txt'], check=True)", "log.txt"),
        ("(checkpoint / 'config.json').rename(folder / 'config.json')", "checkpoint/config.json"),
    ],
)
def test_what_changes_the_stage_in_another_way_is_refused_afterwards(export: Export, body: str, outside: str) -> None:
    assert export.refusal(body) == f"wrote {export.stage / outside}, outside of the folder it was given"


@pytest.mark.parametrize("leave", ["os.symlink(checkpoint / 'config.json', folder / 'x')", "os.mkfifo(folder / 'x')"])
def test_what_is_neither_a_file_nor_a_folder_is_refused(export: Export, leave: str) -> None:
    assert export.refusal(leave) == "left x, which is neither a file nor a folder"


@pytest.mark.parametrize("catch", ["Exception", "BaseException"])
def test_a_refusal_that_the_hook_swallows_is_one_all_the_same(export: Export, catch: str) -> None:
    body = f"try:\n    open(folder.parent / 'log.txt', 'w')\nexcept {catch}:\n    pass"
    assert export.refusal(body) == f"wrote {export.stage / 'log.txt'}, outside of the folder it was given"


def test_a_refusal_is_forgotten_in_the_next_run(export: Export, monkeypatch: pytest.MonkeyPatch) -> None:
    body = "open(os.environ['WRITES'], 'w')"
    monkeypatch.setenv("WRITES", str(export.stage / "log.txt"))
    export.refusal(body)
    monkeypatch.setenv("WRITES", str(export.folder / "log.txt"))
    export.run(body)
    assert (export.folder / "log.txt").is_file()


def test_errors_of_the_hook_itself_stay_what_they_are(export: Export) -> None:
    with pytest.raises(HookError) as caught:
        export.run("raise ValueError('the sky fell')")
    assert str(caught.value) == WHERE + "ValueError: the sky fell"


def test_afterwards_anything_may_be_written_again(export: Export) -> None:
    export.refusal("open(folder.parent / 'log.txt', 'w')")
    (export.stage / "log.txt").write_text("x")
    (export.stage / "log.txt").unlink()


def test_a_hook_that_returns_something_is_refused(export: Export) -> None:
    with pytest.raises(HookError, match="hook export: must return nothing, not a value of type str"):
        export.run("return 'model.gguf'")


def test_a_method_without_the_hook_exports_nothing(export: Export, plugins: PluginFolder) -> None:
    plugins.toy()
    method = load_method("toy")
    method.export(export.checkpoint, export.folder, method.config({}))
    assert list(export.folder.iterdir()) == []
