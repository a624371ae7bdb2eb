"""From a name to a folder: local, from a hub on the loopback interface, from a cache; and a line for each failure."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from hyocr_core.checkpoint.resolve import ResolvedModel, resolve_model
from hyocr_core.errors import CheckpointError

SHA = "0123456789abcdef0123456789abcdef01234567"
REPO = "tencent/HunyuanOCR"
WANTED = {
    "config.json": b'{"model_type": "hunyuan_vl"}',
    "model.safetensors": b"weights",
    "model.safetensors.index.json": b"{}",
    "chat_template.jinja": b"{{ x }}",
    "merges.txt": b"a b",
    "LICENSE": b"terms",
}
UNWANTED = {
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
    "v1.0/config.json": b"older",
    "v1.0/model.safetensors": b"older",
}
FILES = WANTED | UNWANTED

SCRIPT = """
import json, sys
from hyocr_core.checkpoint.resolve import resolve_model
from hyocr_core.errors import CheckpointError
try:
    found = resolve_model(*sys.argv[1:])
    print(json.dumps({"folder": str(found.folder), "repo_id": found.repo_id, "revision": found.revision}))
except CheckpointError as error:
    print(json.dumps({"error": str(error)}))
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub as a download of small files needs; gated/* and absent/* answer as the hub does."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(urlsplit(self.path).path)

    do_HEAD = do_GET  # noqa: N815

    def log_message(self, *_args: object) -> None:
        pass

    def _answer(self, path: str) -> None:
        if "/gated/" in path:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo", "X-Error-Message": "Access is restricted."})
        elif "/absent/" in path:
            self._send(401, b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found"})
        elif "/broken/" in path:
            self._send(500, b"oops", {})
        elif path in (f"/api/models/{REPO}", f"/api/models/{REPO}/revision/main", f"/api/models/{REPO}/revision/{SHA}"):
            self._send(200, json.dumps({"_id": "1", "id": REPO, "sha": SHA}).encode(), {})
        elif path.startswith(f"/api/models/{REPO}/revision/"):
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        elif path.startswith(f"/api/models/{REPO}/tree/"):
            tree = [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in FILES.items()]
            self._send(200, json.dumps(tree).encode(), {})
        else:
            name = path.removeprefix(f"/{REPO}/resolve/{SHA}/")
            self._send(200, FILES[name], {"ETag": f'"{name.replace("/", "-")}"', "X-Repo-Commit": SHA})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in ({"Content-Length": str(len(body)), "Content-Type": "application/json"} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def resolve(home: Path, *args: str, **environment: str) -> dict[str, Any]:
    """resolve_model in a process of its own: huggingface_hub reads its environment on import."""
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(("HF_", "HTTP", "ALL_PROXY"))}
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, *args],
        env=kept | {"HF_HOME": str(home), "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_XET": "1"} | environment,
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout)
    assert isinstance(answer, dict)
    assert "\n" not in answer.get("error", "")
    return answer


def fill_cache(home: Path) -> Path:
    """The cache's layout as huggingface_hub documents it: refs, blobs, snapshots of links to blobs."""
    repo = home / "hub" / "models--tencent--HunyuanOCR"
    snapshot = repo / "snapshots" / SHA
    for folder in (snapshot, repo / "blobs", repo / "refs"):
        folder.mkdir(parents=True)
    (repo / "refs" / "main").write_text(SHA, encoding="utf-8")
    for number, (name, content) in enumerate(WANTED.items()):
        (repo / "blobs" / str(number)).write_bytes(content)
        (snapshot / name).symlink_to(f"../../blobs/{number}")
    return snapshot


class TestLocal:
    def test_a_folder(self, tmp_path: Path) -> None:
        assert resolve_model(str(tmp_path)) == ResolvedModel(tmp_path, None, None)

    def test_a_folder_goes_before_the_hub(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        Path(REPO).mkdir(parents=True)
        assert resolve_model(REPO) == ResolvedModel(Path(REPO), None, None)

    def test_home(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "model").mkdir()
        assert resolve_model("~/model").folder == tmp_path / "model"

    @pytest.mark.parametrize("model", ["./a", "../a", "/nowhere/a", "~/nowhere-at-all", "a/b/c", "a/", "."])
    def test_what_looks_like_a_path_never_asks_the_hub(
        self, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        empty = tmp_path / "empty"
        empty.mkdir()
        monkeypatch.chdir(empty)
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        if model == ".":
            assert resolve_model(model).folder == Path()
        else:
            with pytest.raises(CheckpointError, match="does not exist"):
                resolve_model(model)

    def test_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "model.safetensors").touch()
        with pytest.raises(CheckpointError, match="is a file"):
            resolve_model(str(tmp_path / "model.safetensors"))

    @pytest.mark.parametrize("model", ["demo-ocr", ""])
    def test_neither_a_folder_nor_an_id(self, model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(CheckpointError):
            resolve_model(model)

    def test_a_revision_of_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="local folder"):
            resolve_model(str(tmp_path), "main")


class TestHub:
    def test_download_records_the_commit_and_takes_the_root_only(self, hub: str, tmp_path: Path) -> None:
        found = resolve(tmp_path, REPO, HF_ENDPOINT=hub)
        assert (found["repo_id"], found["revision"]) == (REPO, SHA)
        folder = Path(found["folder"])
        assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()} == WANTED
        again = resolve(tmp_path, REPO, HF_HUB_OFFLINE="1", HF_ENDPOINT=hub)
        assert again == found

    def test_a_commit(self, hub: str, tmp_path: Path) -> None:
        assert resolve(tmp_path, REPO, SHA, HF_ENDPOINT=hub)["revision"] == SHA

    def test_no_such_revision(self, hub: str, tmp_path: Path) -> None:
        assert f"{REPO} has no revision v9" in resolve(tmp_path, REPO, "v9", HF_ENDPOINT=hub)["error"]

    def test_gated(self, hub: str, tmp_path: Path) -> None:
        error = resolve(tmp_path, "gated/model", HF_ENDPOINT=hub)["error"]
        assert f"accept its licence at {hub}/gated/model" in error
        assert "hf auth login" in error

    def test_not_found(self, hub: str, tmp_path: Path) -> None:
        error = resolve(tmp_path, "absent/model", HF_ENDPOINT=hub)["error"]
        assert "no folder absent/model" in error
        assert f"no such model at {hub}/absent/model" in error

    def test_hub_out_of_order(self, hub: str, tmp_path: Path) -> None:
        error = resolve(tmp_path, "broken/model", HF_ENDPOINT=hub)["error"]
        assert hub in error
        assert "500" in error

    def test_no_network(self, tmp_path: Path) -> None:
        error = resolve(tmp_path, REPO, HF_ENDPOINT="http://127.0.0.1:9")["error"]
        assert "check the network" in error
        assert "http://127.0.0.1:9" in error

    def test_not_an_id(self, tmp_path: Path) -> None:
        assert "cannot be the id" in resolve(tmp_path, "a b/--c", HF_ENDPOINT="http://127.0.0.1:9")["error"]


class TestCache:
    @pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
    def test_a_filled_cache_needs_no_hub(self, tmp_path: Path, environment: dict[str, str]) -> None:
        snapshot = fill_cache(tmp_path)
        expected = {"folder": str(snapshot), "repo_id": REPO, "revision": SHA}
        assert resolve(tmp_path, REPO, **environment) == expected

    def test_elsewhere(self, tmp_path: Path) -> None:
        snapshot = fill_cache(tmp_path / "elsewhere")
        cache = str(tmp_path / "elsewhere" / "hub")
        assert resolve(tmp_path, REPO, HF_HUB_OFFLINE="1", HF_HUB_CACHE=cache)["folder"] == str(snapshot)

    def test_offline_and_not_there(self, tmp_path: Path) -> None:
        error = resolve(tmp_path, REPO, HF_HUB_OFFLINE="1")["error"]
        assert str(tmp_path / "hub") in error
        assert "HF_HUB_OFFLINE" in error
