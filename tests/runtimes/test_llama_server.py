"""A `llama-server` that is started on GGUF files and stopped; here one that only speaks as it does."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from hyocr_core.cli.main import main
from hyocr_core.errors import CheckpointError, MissingRuntimeError, RunError
from hyocr_core.runtimes.llama_installed import PACKAGE, LlamaProgram, find_llama_server
from hyocr_core.runtimes.llama_server import GgufFiles, LlamaServer
from hyocr_core.verification.trial_load import read_page
from tests.conftest import PluginFolder

STUB = """#!EXECUTABLE
import json, os, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
if sys.argv[1:] == ["--version"]:
    sys.exit(print("version: 9999 (abcdef)\\nbuilt with nothing", file=sys.stderr))
given = dict(zip(sys.argv[2::2], sys.argv[3::2]))
with open(os.environ["STUB_NOTES"], "a") as notes:
    print(json.dumps({"pid": os.getpid(), **given}), file=notes)
if reason := os.environ.get("STUB_FAILS"):
    sys.exit(print(f"loading\\n{reason}\\nexiting", file=sys.stderr))
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.answer(b"{}")
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with open(os.environ["STUB_NOTES"], "a") as notes:
            print(json.dumps({key: body[key] for key in body if key != "messages"}), file=notes)
        if os.environ.get("STUB_DIES"):
            print("ggml_abort: error: out of memory", file=sys.stderr, flush=True)
            os._exit(1)
        usage = {"prompt_tokens": 7, "completion_tokens": 3}
        if body.get("stream"):
            chunks = [{"choices": [{"index": 0, "delta": {"content": "text"}}]}, {"choices": [], "usage": usage}]
            self.answer(b"".join(b"data: " + json.dumps(each).encode() + b"\\n\\n" for each in chunks))
        else:
            choice = {"message": {"content": "text"}, "finish_reason": "stop"}
            self.answer(json.dumps({"choices": [choice], "usage": usage}).encode())
    def answer(self, body):
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
ThreadingHTTPServer((given["--host"], int(given["--port"])), Handler).serve_forever()
"""

STUB_PACKAGE = """
import json, os, sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace
class CommonParams(SimpleNamespace):
    def __init__(self):
        parts = ("model", "mmproj", "cpuparams", "cpuparams_batch")
        super().__init__(**{name: SimpleNamespace() for name in parts})
class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
    def log_message(self, *_):
        pass
class Server:
    def __init__(self, told):
        if reason := os.environ.get("STUB_FAILS"):
            print(reason, file=sys.stderr)
            raise RuntimeError("Failed to init server, please check the input params.")
        threads = [told.cpuparams.n_threads, told.cpuparams_batch.n_threads]
        notes = {"model": told.model.path, "mmproj": told.mmproj.path, "threads": threads, "pid": os.getpid()}
        notes |= {name: value for name, value in vars(told).items() if not isinstance(value, SimpleNamespace)}
        with open(os.environ["STUB_NOTES"], "a") as file:
            print(json.dumps(notes), file=file)
        serve = ThreadingHTTPServer((told.hostnames[0], told.port), Handler).serve_forever
        Thread(target=serve, daemon=True).start()
"""


@pytest.fixture
def stub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A `llama-server` on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    program = folder / "llama-server"
    program.write_text(STUB.replace("EXECUTABLE", sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    monkeypatch.setenv("STUB_NOTES", str(tmp_path / "notes"))
    return program


@pytest.fixture
def notes(tmp_path: Path) -> Callable[[], list[dict[str, Any]]]:
    return lambda: [json.loads(line) for line in (tmp_path / "notes").read_text().splitlines()]


@pytest.fixture
def checkpoint(tiny: Path, tmp_path: Path) -> Path:
    """`tiny` with two files beside it that nobody opens."""
    folder = tmp_path / "model"
    shutil.copytree(tiny, folder)
    for name in ("model-q4_0.gguf", "mmproj-f16.gguf", "imatrix.gguf"):
        (folder / name).write_bytes(name.encode())
    return folder


@pytest.fixture
def llama_cpp(plugins: PluginFolder) -> None:
    """The backend, whatever the metadata of the installed core is."""
    value = {"llama.cpp": "hyocr_core.evaluation.reading.llama_cpp:LlamaCpp"}
    plugins.metadata("hyocr-backend-under-test", "0.0.1", value, "its entry point", "hyocr.backends")


SELECTOR = "hyocr-backend-under-test:llama.cpp"


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """No measurement is longer than it must be."""
    monkeypatch.setattr("hyocr_core.evaluation.turns.SECONDS", 0.0)


@pytest.fixture
def pages(tmp_path: Path) -> Path:
    folder = tmp_path / "pages"
    folder.mkdir()
    for index in range(3):
        Image.new("RGB", (256, 32), (index, 9, 200)).save(folder / f"{index}.png")
        (folder / f"{index}.txt").write_text("text")
    return folder


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


def test_it_is_stopped_at_the_end(stub: Path, checkpoint: Path, notes: Callable[[], list[dict[str, Any]]]) -> None:
    program = find_llama_server(None)
    assert program == LlamaProgram((str(stub),), "9999 (abcdef)")
    with LlamaServer(program, GgufFiles.of(checkpoint), 300, at_once=2) as server:
        (started,) = notes()
        assert started["pid"] == server.number
        assert psutil.pid_exists(server.number)
    assert not psutil.pid_exists(server.number)
    assert (started["--ctx-size"], started["--parallel"], started["--host"]) == ("600", "2", "127.0.0.1")
    assert (started["--model"], started["--mmproj"]) == tuple(
        str(checkpoint / name) for name in ("model-q4_0.gguf", "mmproj-f16.gguf")
    )


@pytest.mark.usefixtures("llama_cpp", "stub")
def test_an_evaluation_starts_and_stops_it(
    checkpoint: Path, pages: Path, notes: Callable[[], list[dict[str, Any]]]
) -> None:
    evaluated = ("eval", checkpoint, "--data", pages, "--keep-duplicates", "--backend", SELECTOR, "--json")
    result = run(*evaluated, "--repetition-penalty", 1.08, "--max-new-tokens", 20)
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [page["text"] for page in found["pages"]] == ["text"] * 3
    assert (found["model"]["runtime"], found["model"]["forward"]) == ("llama.cpp", "reference")
    assert found["environment"]["model llama.cpp"] == "9999 (abcdef)"
    assert len(found["environment"]["model mmproj-f16.gguf"]) == 64
    started, *asked = notes()
    assert not psutil.pid_exists(int(started["pid"]))
    assert len(asked) == 3
    for body in asked:
        assert (body["repeat_penalty"], body["cache_prompt"], body["max_tokens"]) == (1.08, False, 20)
        assert int(body["repeat_last_n"]) > 0, "llama.cpp refuses -1 in a request"


@pytest.mark.usefixtures("llama_cpp", "stub")
def test_its_speed_is_measured(checkpoint: Path, pages: Path, notes: Callable[[], list[dict[str, Any]]]) -> None:
    load = ("--at-once", "1,2", "--turns", 1, "--repetitions", 1, "--max-new-tokens", 20, "--repetition-penalty", 1)
    result = run("bench", checkpoint, "--data", pages, "--backend", SELECTOR, "--json", *load)
    assert result.exit_code == 0, result.output
    measured = json.loads(result.stdout)["model"]
    assert measured["memory_bytes"] > 10**6
    started = notes()[0]
    assert started["--parallel"] == "2"
    assert not psutil.pid_exists(int(started["pid"]))


def test_verify_lets_it_read_a_line(
    stub: Path, checkpoint: Path, notes: Callable[[], list[dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Formats are Transformers' concern; and what is not there cannot be tried."""
    formats: Any = None
    loaded = read_page(checkpoint, "llama.cpp", formats, {}, None)
    assert (loaded.outcome, loaded.text, loaded.forward) == ("read", "text", "reference")
    assert not psutil.pid_exists(notes()[0]["pid"])
    stub.unlink()
    no_llama_cpp(monkeypatch)
    assert read_page(checkpoint, "llama.cpp", formats, {}, None).outcome == "cannot be tried here"


@pytest.mark.usefixtures("llama_cpp", "stub")
def test_a_server_that_dies_says_why(checkpoint: Path, pages: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STUB_DIES", "1")
    monkeypatch.setattr("hyocr_core.runtimes.endpoint.PAUSE", 0.01)
    result = run("eval", checkpoint, "--data", pages, "--keep-duplicates", "--backend", SELECTOR)
    assert result.exit_code == 1, result.output
    assert "llama.cpp: ggml_abort: error: out of memory" in result.stderr


@pytest.mark.parametrize(
    ("reason", "kind"),
    [("error: unknown model architecture: 'hunyuan_vl'", CheckpointError), ("error: cannot allocate", RunError)],
)
def test_files_that_it_does_not_load(
    stub: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch, reason: str, kind: type[Exception]
) -> None:
    monkeypatch.setenv("STUB_FAILS", reason)
    with (
        pytest.raises(kind, match=reason),
        LlamaServer(LlamaProgram((str(stub),), ""), GgufFiles.of(checkpoint), 300, at_once=1),
    ):
        pass


def test_a_folder_without_its_files(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"one GGUF file of the text model, such as model-q4_0.gguf; there: none"):
        GgufFiles.of(tmp_path)
    for name in ("model-f16.gguf", "model-q4_0.gguf", "mmproj-f16.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(CheckpointError, match=r"there: model-f16.gguf, model-q4_0.gguf"):
        GgufFiles.of(tmp_path)


def no_llama_cpp(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither a program nor the package."""

    def none(package: str) -> str:
        raise PackageNotFoundError(package)

    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("hyocr_core.runtimes.llama_installed.version", none)


def test_no_program(monkeypatch: pytest.MonkeyPatch) -> None:
    no_llama_cpp(monkeypatch)
    with pytest.raises(MissingRuntimeError, match=r"no llama-server on the PATH, .* 'hyocr-plugin-gguf\[llama\]'"):
        find_llama_server(None)
    with pytest.raises(
        MissingRuntimeError, match="nowhere is no program; name a llama-server, or none and pip install"
    ):
        find_llama_server(Path("nowhere"))
    with pytest.raises(MissingRuntimeError, match="does not answer --version as llama-server does"):
        find_llama_server(Path(sys.executable))


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No program, but the package; here its names alone, which note what they are told."""
    folder = tmp_path / "packages"
    folder.mkdir()
    (folder / f"{PACKAGE}.py").write_text(STUB_PACKAGE)
    metadata = folder / f"{PACKAGE}-1.2.dist-info/METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {PACKAGE}\nVersion: 1.2\n")
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("STUB_NOTES", str(tmp_path / "notes"))
    monkeypatch.syspath_prepend(folder)
    return folder


@pytest.mark.usefixtures("package")
def test_the_package_serves_where_there_is_no_program(
    checkpoint: Path, notes: Callable[[], list[dict[str, Any]]]
) -> None:
    program = find_llama_server(None)
    assert program.version == "xllamacpp 1.2"
    with LlamaServer(program, GgufFiles.of(checkpoint), 300, at_once=2) as server:
        (told,) = notes()
        assert told["pid"] == server.number
    assert not psutil.pid_exists(server.number)
    assert (told["model"], told["mmproj"]) == tuple(
        str(checkpoint / name) for name in ("model-q4_0.gguf", "mmproj-f16.gguf")
    )
    assert (told["n_ctx"], told["n_parallel"], told["hostnames"], told["use_jinja"]) == (600, 2, ["127.0.0.1"], True)
    assert told["threads"] == [torch.get_num_threads()] * 2


@pytest.mark.usefixtures("package")
def test_the_package_says_why_it_does_not_load(checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reason = "error loading model: unknown model architecture: 'hunyuan_vl'"
    monkeypatch.setenv("STUB_FAILS", reason)
    with (
        pytest.raises(CheckpointError, match=f"^llama.cpp: .*: {reason}$"),
        LlamaServer(find_llama_server(None), GgufFiles.of(checkpoint), 300, at_once=1),
    ):
        pass
