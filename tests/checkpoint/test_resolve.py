"""From a name to a folder: local, from a hub on the loopback interface, from a cache; and a line for each failure."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from hyocr_core.checkpoint.resolve import ResolvedModel, resolve_model
from hyocr_core.errors import CheckpointError

SHA = "0123456789abcdef0123456789abcdef01234567"
OLD = "89abcdef0123456789abcdef0123456789abcdef"
REPO = "tencent/HunyuanOCR"
WANTED = {
    "config.json": b'{"model_type": "hunyuan_vl"}',
    "model.safetensors": b"weights",
    "model.safetensors.index.json": b"{}",
    "chat_template.jinja": b"{{ x }}",
    "merges.txt": b"a b",
    "LICENSE": b"terms",
}
FIRST = {
    "config.json": b"older",
    "model-00001-of-00004.safetensors": b"older",
}
UNWANTED = {
    "pytorch_model.bin": b"pickle",
    "modeling.py": b"code",
    "assets/page.json": b"{}",
    "dflash/config.json": b"draft",
    "dflash/dflash.py": b"code",
    "dflash/model.safetensors": b"draft",
    "v1.0/modeling.py": b"code",
    "v1.0/deeper/config.json": b"deeper",
}
FILES = WANTED | UNWANTED | {f"v1.0/{name}": content for name, content in FIRST.items()}
OLD_FILES = {"config.json": b"of another commit"}
COMMITS = {SHA: FILES, OLD: OLD_FILES}
REVISIONS = {"main": SHA, SHA: SHA, "first": OLD, "refs/pr/1": OLD, OLD: OLD}

SCRIPT = """
import json, sys
from hyocr_core.checkpoint.resolve import resolve_model
from hyocr_core.errors import CheckpointError
try:
    found = resolve_model(*sys.argv[1:])
    print(json.dumps({"folder": str(found.folder), "repo_id": found.repo_id, "revision": found.revision,
                      "subfolder": found.subfolder}))
except CheckpointError as error:
    print(json.dumps({"error": str(error)}))
assert "torch" not in sys.modules and "transformers" not in sys.modules
"""


class FakeHub(BaseHTTPRequestHandler):
    """As much of the hub as a download of small files needs; gated/*, absent/* and the like answer as it does."""

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
        elif "/refused/" in path:
            self._send(403, b"{}", {})
        elif "/unknown/" in path:
            self._send(401, b"{}", {})
        elif "/gone/" in path:
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif path == f"/api/models/{REPO}" or path.startswith(f"/api/models/{REPO}/revision/"):
            self._tell(unquote(path.partition("/revision/")[2]) or "main")
        elif path.startswith(f"/api/models/{REPO}/tree/"):
            files = COMMITS[path.rsplit("/", 1)[1]]
            tree = [{"type": "file", "path": p, "size": len(c), "oid": "0" * 40} for p, c in files.items()]
            self._send(200, json.dumps(tree).encode(), {})
        else:
            commit, _, name = path.removeprefix(f"/{REPO}/resolve/").partition("/")
            tag = f"{commit}-{name}".replace("/", "-")
            self._send(200, COMMITS[commit][name], {"ETag": f'"{tag}"', "X-Repo-Commit": commit})

    def _tell(self, revision: str) -> None:
        if revision in REVISIONS:
            self._send(200, json.dumps({"_id": "1", "id": REPO, "sha": REVISIONS[revision]}).encode(), {})
        else:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})

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


def add_revision(home: Path) -> Path:
    """Another commit beside that of `fill_cache`, as the tag `first`."""
    repo = home / "hub" / "models--tencent--HunyuanOCR"
    snapshot = repo / "snapshots" / OLD
    (snapshot / "v1.0").mkdir(parents=True)
    (snapshot / "v1.0" / "config.json").write_bytes(b"older")
    (repo / "refs" / "first").write_text(OLD, encoding="utf-8")
    return snapshot


def files_of(folder: str) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in Path(folder).rglob("*") if p.is_file()}


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

    @pytest.mark.parametrize("model", ["./a", "../a", "/nowhere/a", "~/nowhere-at-all", "a/b/c/", "a/", "."])
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
        assert found["subfolder"] is None
        assert files_of(found["folder"]) == WANTED
        again = resolve(tmp_path, REPO, HF_HUB_OFFLINE="1", HF_ENDPOINT=hub)
        assert again == found

    def test_a_commit(self, hub: str, tmp_path: Path) -> None:
        assert resolve(tmp_path, REPO, SHA, HF_ENDPOINT=hub)["revision"] == SHA

    @pytest.mark.parametrize(
        "named",
        [
            (REPO, "first"),
            (f"{REPO}@first",),
            (f"{REPO}@first", "first"),
            (f"{REPO}@{OLD}",),
            (f"{REPO}@refs/pr/1",),
            (f"https://huggingface.co/{REPO}/tree/first",),
            (f"https://huggingface.co/{REPO}/tree/{OLD}/",),
            (f"https://huggingface.co/{REPO}/tree/refs%2Fpr%2F1",),
            (f"huggingface.co/{REPO}", "first"),
        ],
    )
    def test_a_revision(self, named: tuple[str, ...], hub: str, tmp_path: Path) -> None:
        found = resolve(tmp_path, *named, HF_ENDPOINT=hub)
        assert (found["repo_id"], found["revision"], found["subfolder"]) == (REPO, OLD, None)
        assert files_of(found["folder"]) == OLD_FILES

    @pytest.mark.parametrize(
        "named",
        [
            (f"{REPO}/v1.0",),
            (f"{REPO}/v1.0", "main"),
            (f"{REPO}/v1.0@main",),
            (f"{REPO}@{SHA}/v1.0",),
            (f"https://huggingface.co/{REPO}/tree/main/v1.0",),
            (f"https://huggingface.co/{REPO}/tree/{SHA}/v1.0/?not-for-all-audiences=true#files",),
        ],
    )
    def test_a_folder_and_nothing_else(self, named: tuple[str, ...], hub: str, tmp_path: Path) -> None:
        found = resolve(tmp_path, *named, HF_ENDPOINT=hub)
        assert (found["repo_id"], found["revision"], found["subfolder"]) == (REPO, SHA, "v1.0")
        snapshot = Path(found["folder"]).parent
        assert snapshot.name == SHA
        assert files_of(str(snapshot)) == {f"v1.0/{name}": content for name, content in FIRST.items()}
        assert resolve(tmp_path, *named, HF_HUB_OFFLINE="1", HF_ENDPOINT=hub) == found

    @pytest.mark.parametrize("address", ["https://huggingface.co", "HUB"])
    @pytest.mark.parametrize("rest", ["", "/", "/tree/main", "/tree/main/"])
    def test_the_root_by_its_address(self, address: str, rest: str, hub: str, tmp_path: Path) -> None:
        found = resolve(tmp_path, f"{address.replace('HUB', hub)}/{REPO}{rest}", HF_ENDPOINT=hub)
        assert (found["repo_id"], found["revision"], found["subfolder"]) == (REPO, SHA, None)
        assert files_of(found["folder"]) == WANTED

    @pytest.mark.parametrize("folder", ["v9", "assets/none", "v1"])
    def test_no_such_folder(self, folder: str, hub: str, tmp_path: Path) -> None:
        error = resolve(tmp_path, f"{REPO}/{folder}@first", HF_ENDPOINT=hub)["error"]
        assert f"{REPO} has no folder {folder} with a checkpoint at revision first" in error
        assert f"{hub}/{REPO}/tree/{OLD}" in error

    @pytest.mark.parametrize(("owner", "status"), [("unknown", 401), ("refused", 403)])
    def test_refused(self, owner: str, status: int, hub: str, tmp_path: Path) -> None:
        error = resolve(tmp_path, f"{owner}/model/v1.0", HF_ENDPOINT=hub)["error"]
        assert f"refuses {owner}/model ({status}): run `hf auth login`" in error
        assert f"accept the licence at {hub}/{owner}/model" in error

    def test_gone(self, hub: str, tmp_path: Path) -> None:
        error = resolve(tmp_path, "gone/model/v1.0", HF_ENDPOINT=hub)["error"]
        assert f"no such model at {hub}/gone/model;" in error

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
        assert "a local folder, or a cache that `hf download` has filled, works without it" in error
        assert "http://127.0.0.1:9" in error

    def test_a_hub_that_does_not_answer_is_given_up_soon(self, tmp_path: Path) -> None:
        with socket.socket() as deaf:
            deaf.bind(("127.0.0.1", 0))
            deaf.listen(0)
            # Connections that nobody accepts fill the queue: of a further one the first packet is dropped.
            waiting = [socket.socket() for _ in range(4)]
            for each in waiting:
                each.setblocking(False)
                each.connect_ex(deaf.getsockname())
            before = time.monotonic()
            error = resolve(tmp_path, REPO, HF_ENDPOINT=f"http://127.0.0.1:{deaf.getsockname()[1]}")["error"]
            seconds = time.monotonic() - before
            for each in waiting:
                each.close()
        assert "check the network" in error
        assert seconds < 30

    def test_not_an_id(self, tmp_path: Path) -> None:
        assert "cannot be the id" in resolve(tmp_path, "a b/--c", HF_ENDPOINT="http://127.0.0.1:9")["error"]


class TestCache:
    @pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
    def test_a_filled_cache_needs_no_hub(self, tmp_path: Path, environment: dict[str, str]) -> None:
        snapshot = fill_cache(tmp_path)
        expected = {"folder": str(snapshot), "repo_id": REPO, "revision": SHA, "subfolder": None}
        assert resolve(tmp_path, REPO, **environment) == expected

    @pytest.mark.parametrize("environment", [{"HF_HUB_OFFLINE": "1"}, {"HF_ENDPOINT": "http://127.0.0.1:9"}])
    def test_of_two_revisions_the_one_that_is_named(self, tmp_path: Path, environment: dict[str, str]) -> None:
        newest, first = fill_cache(tmp_path), add_revision(tmp_path)
        for named in ((REPO,), (REPO, "main"), (f"{REPO}@{SHA}",)):
            assert resolve(tmp_path, *named, **environment)["folder"] == str(newest)
        for named in ((REPO, "first"), (f"{REPO}@first",), (f"{REPO}@{OLD}",)):
            found = resolve(tmp_path, *named, **environment)
            assert (found["folder"], found["revision"]) == (str(first), OLD)
        assert resolve(tmp_path, f"{REPO}/v1.0@first", **environment)["folder"] == str(first / "v1.0")
        why = "HF_HUB_OFFLINE" if "HF_HUB_OFFLINE" in environment else "check the network"
        for named in ((REPO, "second"), (f"{REPO}/v1.0",)):
            assert why in resolve(tmp_path, *named, **environment)["error"]

    def test_elsewhere(self, tmp_path: Path) -> None:
        snapshot = fill_cache(tmp_path / "elsewhere")
        cache = str(tmp_path / "elsewhere" / "hub")
        assert resolve(tmp_path, REPO, HF_HUB_OFFLINE="1", HF_HUB_CACHE=cache)["folder"] == str(snapshot)

    def test_offline_and_not_there(self, tmp_path: Path) -> None:
        error = resolve(tmp_path, REPO, HF_HUB_OFFLINE="1")["error"]
        assert str(tmp_path / "hub") in error
        assert "HF_HUB_OFFLINE" in error


@pytest.mark.parametrize(
    "model",
    [
        "https://huggingface.co/datasets/org/name",
        "https://huggingface.co/tencent",
        f"https://huggingface.co/{REPO}/blob/main/config.json",
        f"https://huggingface.co/{REPO}/tree",
        f"https://example.com/{REPO}",
        "http://127.0.0.1:8000/v1",
        f"https:///{REPO}",
        f"https://[huggingface.co/{REPO}",
    ],
)
def test_an_address_of_something_else(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    with pytest.raises(CheckpointError, match="is not the address of a hub model"):
        resolve_model(model)


@pytest.mark.parametrize(
    ("model", "revision", "said"),
    [
        (f"{REPO}@", None, "no revision stands after the @"),
        (f"{REPO}@/v1.0", None, "is no revision"),
        (f"{REPO}@first", "second", "two revisions are given: first in tencent/HunyuanOCR@first, and second"),
        (f"https://huggingface.co/{REPO}/tree/main", "first", "two revisions are given"),
        (f"{REPO}/../other", None, "cannot be a folder"),
        (f"{REPO}//v1.0", None, "cannot be a folder"),
        (f"https://huggingface.co/{REPO}/tree/main/%2e%2e/x", None, "cannot be a folder"),
        ("tencent@main", None, "a model of the hub is called org/name"),
    ],
)
def test_a_name_that_cannot_be(model: str, revision: str | None, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        resolve_model(model, revision)
