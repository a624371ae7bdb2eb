"""Models of ModelScope through its own library: from a hub on the loopback interface, from its cache; and failures."""

from __future__ import annotations

import hashlib
import json
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from hyocr_core.checkpoint.hub_name import HubName, page_of, parse_hub_name
from hyocr_core.checkpoint.resolve import ResolvedModel, resolve_model
from hyocr_core.errors import CheckpointError

real = pytest.mark.skipif(find_spec("modelscope_hub") is None, reason="needs hyocr-core[modelscope]")

REPO = "tencent/HunyuanOCR"
NEWEST, OLDER, OLDEST = "1" * 40, "2" * 40, "3" * 40
WANTED = {"config.json": b"{}", "model.safetensors": b"weights", "chat_template.jinja": b"{{ x }}"}
FIRST = {"config.json": b"older", "model-00001-of-00004.safetensors": b"older"}
UNWANTED = {
    "modeling.py": b"code",
    "pytorch_model.bin": b"pickle",
    "assets/page.json": b"{}",
    "dflash/config.json": b"draft",
    "dflash/model.safetensors": b"draft",
    "v1.0/modeling.py": b"code",
    "v1.0/deeper/config.json": b"deeper",
}
BRANCHES = {
    "master": WANTED | UNWANTED | {f"v1.0/{name}": content for name, content in FIRST.items()},
    "first": {"config.json": b"of a tag"},
    OLDEST: {"config.json": b"of a commit"},
}
REVISIONS = {"config.json": (NEWEST, 1753546348)}
"""File -> the commit that changed it last, and when; the others are older."""


class FakeModelScope(BaseHTTPRequestHandler):
    """As much of ModelScope as its library asks for when it lists and downloads the files of a model."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        owner, name, *what = [*url.path.removeprefix("/api/v1/models/").split("/"), "", ""]
        query = {key: values[0] for key, values in parse_qs(url.query).items()}
        refusals = {"absent": 404, "unknown": 401, "refused": 403, "broken": 400}
        if owner in refusals:
            self._send(refusals[owner], {"Code": refusals[owner], "Message": "no", "Success": False})
        elif f"{owner}/{name}" == REPO and "/".join(what).strip("/") == "repo/files":
            self._send(200, {"Code": 200, "Data": {"Files": self._listing(query["Revision"])}, "Success": True})
        elif f"{owner}/{name}" == REPO and what[0] == "repo":
            self._body(200, BRANCHES[query["Revision"]][query["FilePath"]])
        else:
            self._send(200, {"Code": 200, "Data": {}, "Success": True})

    def do_HEAD(self) -> None:
        self._body(200, b"")

    def log_message(self, *_args: object) -> None:
        pass

    def _listing(self, revision: str) -> list[dict[str, Any]] | None:
        if revision not in BRANCHES:
            return None  # as ModelScope answers, with no error
        files = []
        for path, content in BRANCHES[revision].items():
            commit, when = REVISIONS.get(path, (OLDER, 1700000000))
            named = {"Path": path, "Name": path.rpartition("/")[2], "Type": "blob", "Size": len(content)}
            told = {"Revision": commit, "CommittedDate": when, "Sha256": hashlib.sha256(content).hexdigest()}
            files.append(named | told)
        return files

    def _send(self, status: int, answer: dict[str, Any]) -> None:
        self._body(status, json.dumps(answer).encode())

    def _body(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeModelScope)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def resolve(home: Path, endpoint: str, *args: str) -> ResolvedModel:
    """resolve_model with this site of ModelScope and a cache below `home`."""
    library: Any = import_module("modelscope_hub")
    before = library.get_default_config()
    own = library.HubConfig(endpoint=endpoint, cache_dir=home / "cache", config_dir=home)
    library.set_default_config(own)
    try:
        return resolve_model(*args)
    finally:
        library.set_default_config(before)


def refused(home: Path, endpoint: str, *args: str) -> str:
    with pytest.raises(CheckpointError) as caught:
        resolve(home, endpoint, *args)
    message = str(caught.value)
    assert "\n" not in message
    return message


def files_of(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


NOWHERE = "http://127.0.0.1:9"


@real
class TestHub:
    @pytest.fixture(autouse=True)
    def _direct(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            monkeypatch.delenv(name, raising=False)
            monkeypatch.delenv(name.upper(), raising=False)

    def test_the_root_with_its_commit_and_from_the_cache_after(self, hub: str, tmp_path: Path) -> None:
        found = resolve(tmp_path, hub, f"ms:{REPO}")
        assert (found.repo_id, found.revision, found.subfolder) == (f"ms:{REPO}", NEWEST, None)
        assert found.name == f"ms:{REPO}"
        assert files_of(found.folder) == WANTED
        # Without the hub nobody says of which commit the branch is.
        assert resolve(tmp_path, NOWHERE, f"ms:{REPO}") == replace(found, revision="master")

    @pytest.mark.parametrize(
        "named", [(f"ms:{REPO}/v1.0",), (f"ms:{REPO}@master/v1.0",), (f"ms:{REPO}/v1.0", "master")]
    )
    def test_a_folder_and_nothing_else(self, named: tuple[str, ...], hub: str, tmp_path: Path) -> None:
        found = resolve(tmp_path, hub, *(part.replace("REPO", REPO) for part in named))
        assert (found.revision, found.subfolder, found.name) == (NEWEST, "v1.0", f"ms:{REPO}/v1.0")
        assert files_of(found.folder.parent) == {f"v1.0/{name}": content for name, content in FIRST.items()}

    def test_the_revision_that_is_named(self, hub: str, tmp_path: Path) -> None:
        resolve(tmp_path, hub, f"ms:{REPO}")
        for named in ((f"ms:{REPO}@first",), (f"ms:{REPO}", "first")):
            found = resolve(tmp_path, hub, *named)
            assert (found.revision, files_of(found.folder)) == (NEWEST, BRANCHES["first"])
            assert resolve(tmp_path, NOWHERE, *named) == replace(found, revision="first")
        found = resolve(tmp_path, hub, f"ms:{REPO}@{OLDEST}")
        assert (found.revision, files_of(found.folder)) == (OLDEST, BRANCHES[OLDEST])
        assert resolve(tmp_path, NOWHERE, f"ms:{REPO}@{OLDEST}") == found

    @pytest.mark.parametrize(
        ("named", "said"),
        [
            (f"ms:{REPO}@second", f"ms:{REPO} has no revision second; see HUB/models/{REPO}/files"),
            (f"ms:{REPO}/v9", f"ms:{REPO} has no folder v9 with a checkpoint at revision master; see HUB/models/"),
            ("ms:absent/model", "there is no model ms:absent/model at HUB/models/absent/model; if it is private, run "),
            ("ms:unknown/model", "HUB refuses ms:unknown/model: run `modelscope login`, and accept the licence at HUB"),
            ("ms:refused/model", "HUB refuses ms:refused/model: run `modelscope login`"),
            ("ms:broken/model", "HUB does not give ms:broken/model (no): check the network"),
        ],
    )
    def test_each_cause_has_its_line(self, named: str, said: str, hub: str, tmp_path: Path) -> None:
        assert refused(tmp_path, hub, named).startswith(said.replace("HUB", hub))

    def test_no_network_is_said_within_seconds(self, tmp_path: Path) -> None:
        before = time.monotonic()
        error = refused(tmp_path, NOWHERE, f"ms:{REPO}")
        assert time.monotonic() - before < 15
        assert error.startswith(f"{NOWHERE} does not give ms:{REPO} (")
        assert "Connection refused): check the network" in error
        assert "a cache that `modelscope download` has filled, works without it" in error

    def test_an_old_cache_does_not_tell_its_revision(self, tmp_path: Path) -> None:
        folder = tmp_path / "cache" / "models" / "tencent" / "HunyuanOCR"
        folder.mkdir(parents=True)
        (folder / "config.json").write_bytes(b"{}")
        found = resolve(tmp_path, NOWHERE, f"ms:{REPO}")
        assert (found.folder, found.revision) == (folder, None)
        assert "does not tell of which revision it is" in refused(tmp_path, NOWHERE, f"ms:{REPO}@first")
        assert "check the network" in refused(tmp_path, NOWHERE, f"ms:{REPO}/v1.0")


def test_without_the_library_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "modelscope_hub", None)
    with pytest.raises(CheckpointError, match=r"^a model of ModelScope .* pip install 'hyocr-core\[modelscope\]'$"):
        resolve_model(f"ms:{REPO}")


@pytest.mark.parametrize(
    ("named", "expected"),
    [
        (f"ms:{REPO}", HubName(REPO, None, None, modelscope=True)),
        (f"ms:{REPO}@first/v1.0", HubName(REPO, "first", "v1.0", modelscope=True)),
        (f"ms:{REPO}/v1.0@a/b", HubName(REPO, "a/b", "v1.0", modelscope=True)),
    ],
)
def test_names(named: str, expected: HubName) -> None:
    assert parse_hub_name(named) == expected
    assert page_of(expected.source) == f"https://modelscope.cn/models/{REPO}"


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ("ms:tencent", "a model of the hub is called org/name"),
        (f"ms:{REPO}@", "no revision stands after the @"),
        (f"ms:{REPO}/../x", "cannot be a folder"),
        (f"https://modelscope.cn/models/{REPO}", "a model of ModelScope is named ms:org/name"),
        (f"www.modelscope.cn/models/{REPO}/summary", "a model of ModelScope is named ms:org/name"),
    ],
)
def test_a_name_that_cannot_be(named: str, said: str) -> None:
    with pytest.raises(CheckpointError, match=said):
        resolve_model(named)
