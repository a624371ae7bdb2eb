"""Uploads to a hub on the loopback interface that answers as the real one does: REST, LFS batches, NDJSON commits."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import pytest

from hyocr_core.run.quantize import quantize
from hyocr_core.settings.run_config import RunConfig

pytestmark = pytest.mark.needs_methods

REPO = "someone/HunyuanOCR-int4"
COMMIT = "f" * 40
TOKEN = "hf_test"  # noqa: S105 - of no real account


@dataclass
class Hub:
    """What the server knows. files: path -> content of the model's main branch."""

    url: str = ""
    exists: bool = False
    private: bool | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)
    broken: bool = False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def hub(self) -> Hub:
        return cast("Any", self.server).hub  # type: ignore[no-any-return]

    def log_message(self, *_args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self._body()
        path = urlsplit(self.path).path
        if self.headers.get("Authorization") != f"Bearer {TOKEN}":
            self._send(401, {"error": "Invalid username or password."})
        elif path == "/api/repos/create":
            self._create(json.loads(body))
        elif path.endswith("/preupload/main"):
            names = [(entry["path"], entry["size"]) for entry in json.loads(body)["files"]]
            modes = [{"path": n, "uploadMode": self._mode(n), "shouldIgnore": False} for n, _ in names]
            self._send(200, {"files": modes})
        elif path == f"/{REPO}.git/info/lfs/objects/batch":
            self._batch(json.loads(body))
        elif path == "/api/validate-yaml":
            self._send(200, {"errors": [], "warnings": []})
        elif path.endswith("/commit/main"):
            self._commit([json.loads(line) for line in body.splitlines()])
        else:
            self._send(404, {"error": path})

    def do_PUT(self) -> None:
        body = self._body()
        self.hub.objects[hashlib.sha256(body).hexdigest()] = body
        self._send(200, {})

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        if path == f"/api/models/{REPO}/tree/main":
            self._send(200, [self._entry(name, content) for name, content in self.hub.files.items()])
        elif path.startswith(f"/api/models/{REPO}"):
            self._send(
                200, {"_id": "1", "id": REPO, "sha": COMMIT, "siblings": [{"rfilename": n} for n in self.hub.files]}
            )
        else:
            self._send(404, {"error": path}, {"X-Error-Code": "EntryNotFound"})

    do_HEAD = do_GET  # noqa: N815

    def _mode(self, name: str) -> str:
        return "lfs" if name.endswith(".safetensors") else "regular"

    def _entry(self, name: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"type": "file", "path": name, "size": len(content), "oid": "0" * 40}
        if self._mode(name) == "lfs":
            sha = hashlib.sha256(content).hexdigest()
            entry["lfs"] = {"oid": sha, "size": len(content), "pointerSize": 134}
        return entry

    def _create(self, asked: dict[str, Any]) -> None:
        answer = {"url": f"{self.hub.url}/{REPO}", "id": REPO, "name": REPO}
        if self.hub.exists:
            self._send(409, answer | {"error": "You already created this model repo"})
            return
        self.hub.exists, self.hub.private = True, asked.get("visibility") == "private"
        self._send(200, answer)

    def _batch(self, asked: dict[str, Any]) -> None:
        actions = {"upload": {"href": f"{self.hub.url}/storage", "header": {}}}
        objects = [
            {"oid": o["oid"], "size": o["size"]} | ({} if o["oid"] in self.hub.objects else {"actions": actions})
            for o in asked["objects"]
        ]
        self._send(200, {"transfer": "basic", "objects": objects})

    def _commit(self, lines: list[dict[str, Any]]) -> None:
        if self.hub.broken:
            self._send(500, {"error": "Internal Error"})
            return
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "header":
                    self.hub.messages.append(value["summary"])
                case "file":
                    self.hub.files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    self.hub.files[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del self.hub.files[value["path"]]
        url = f"{self.hub.url}/{REPO}/commit/{COMMIT}"
        self._send(200, {"success": True, "commitUrl": url, "commitOid": COMMIT})

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, status: int, answer: Any, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(answer).encode()
        self.send_response(status)
        for key, value in (
            {"Content-Length": str(len(body)), "Content-Type": "application/json"} | (headers or {})
        ).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@pytest.fixture
def hub() -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    made = Hub(f"http://127.0.0.1:{server.server_port}")
    cast("Any", server).hub = made
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield made
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def quantized(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("push") / "HunyuanOCR-int4"
    quantize(RunConfig(model=str(demo), output=output, method="rtn", device="cpu"))
    return output


def push(hub: Hub, home: Path, *arguments: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    """`hyocr push` in a process of its own: huggingface_hub reads its environment on import."""
    kept = {key: value for key, value in os.environ.items() if not key.upper().startswith(("HF_", "HTTP", "ALL_PROXY"))}
    environment = {
        "HF_HOME": str(home),
        "HF_ENDPOINT": hub.url,
        "HF_TOKEN": token,
        # The other protocol of the hub is its client's own library's, compiled.
        "HF_HUB_DISABLE_XET": "1",
        "NO_PROXY": "127.0.0.1",
    }
    program = str(Path(sys.executable).with_name("hyocr"))
    command = [program, "push", *arguments]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=False)


def files(folder: Path) -> dict[str, bytes]:
    """What belongs on a hub: not what is kept in folders, beside the checkpoint."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def last_line(done: subprocess.CompletedProcess[str]) -> str:
    return done.stderr.strip().splitlines()[-1]


def test_everything_but_the_evidence_arrives_in_one_commit(hub: Hub, quantized: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(quantized, tmp_path / quantized.name)
    (folder / "report").mkdir(exist_ok=True)
    (folder / "report/eval.json").write_text("a confidential page")
    done = push(hub, tmp_path, str(folder), REPO, "--private", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"url": f"{hub.url}/{REPO}", "commit": COMMIT}
    assert hub.files == files(quantized)
    assert hub.private is True
    assert hub.messages == ["Upload HunyuanOCR-int4, quantized by hyocr"]


def test_weights_of_another_model_stay(hub: Hub, quantized: Path, tmp_path: Path) -> None:
    hub.exists, hub.files = True, {"model.safetensors": b"other", "old-00001.safetensors": b"other", "LICENSE": b"x"}
    refused = push(hub, tmp_path, str(quantized), REPO)
    assert refused.returncode == 2
    assert f"{REPO} holds weights already (model.safetensors)" in last_line(refused)
    assert hub.messages == []
    done = push(hub, tmp_path, str(quantized), REPO, "--replace", "--message", "smaller")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == f"{hub.url}/{REPO}"
    assert hub.files == files(quantized) | {"LICENSE": b"x"}
    assert hub.messages == ["smaller"]


def test_an_upload_that_failed_can_be_run_again(hub: Hub, quantized: Path, tmp_path: Path) -> None:
    hub.broken = True
    failed = push(hub, tmp_path, str(quantized), REPO)
    assert failed.returncode == 1
    assert f"the upload to {hub.url}/{REPO} failed" in last_line(failed)
    assert "run the same command again" in last_line(failed)
    hub.broken = False
    # As after a part of it was committed.
    hub.files["model.safetensors"] = (quantized / "model.safetensors").read_bytes()
    assert push(hub, tmp_path, str(quantized), REPO).returncode == 0
    assert len(hub.files) == len(files(quantized))


def test_without_a_valid_token(hub: Hub, quantized: Path, tmp_path: Path) -> None:
    done = push(hub, tmp_path, str(quantized), REPO, token="hf_wrong")  # noqa: S106 - of no real account
    assert done.returncode == 2
    assert "run `hf auth login`" in last_line(done)
    assert not hub.exists


@pytest.mark.parametrize(
    ("folder", "repo_id", "said"),
    [
        ("nothing", REPO, "is not a folder"),
        ("demo", REPO, "has no quantization_config"),
        ("quantized", "a b/--c", "cannot be the id of a hub model"),
    ],
)
def test_bad_input(folder: str, repo_id: str, said: str, hub: Hub, quantized: Path, demo: Path, tmp_path: Path) -> None:
    path = {"nothing": tmp_path / "nothing", "demo": demo, "quantized": quantized}[folder]
    done = push(hub, tmp_path, str(path), repo_id)
    assert done.returncode == 2
    assert said in last_line(done)
    assert not hub.exists


def test_no_network(quantized: Path, tmp_path: Path) -> None:
    done = push(Hub("http://127.0.0.1:9"), tmp_path, str(quantized), REPO)
    assert done.returncode == 1
    assert "http://127.0.0.1:9" in last_line(done)


def test_a_checkpoint_that_failed_its_gate_stays_here(hub: Hub, quantized: Path, tmp_path: Path) -> None:
    failed = shutil.copytree(quantized, tmp_path / "failed")
    report = json.loads((failed / "hyocr_report.json").read_text())
    figure = {"metric": "cer", "bound": 0.5, "value": 1.2, "passed": False}
    report["gate"] = {"accepted": False, "figures": [figure]}
    (failed / "hyocr_report.json").write_text(json.dumps(report))
    done = push(hub, tmp_path, str(failed), REPO)
    assert done.returncode == 2
    assert "has failed its gate (cer)" in last_line(done)
    assert "--force uploads it" in last_line(done)
    assert not hub.files


def test_what_is_not_as_its_report_says_is_uploaded_by_force_only(hub: Hub, quantized: Path, tmp_path: Path) -> None:
    """tests/verification/test_release.py has what else is refused."""
    folder = shutil.copytree(quantized, tmp_path / "spoilt")
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    refused = push(hub, tmp_path, str(folder), REPO)
    assert refused.returncode == 2
    assert "not sound: model.safetensors: has other bytes than hyocr wrote" in last_line(refused)
    assert not hub.exists
    forced = push(hub, tmp_path, str(folder), REPO, "--force")
    assert forced.returncode == 0, forced.stderr
    assert hub.files == files(folder)
