"""How a model of a hub is named: org/name, with a folder in it or a revision, or its address; ModelScope's with ms:."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, replace
from urllib.parse import unquote, urlsplit

from hyocr_core.errors import CheckpointError

MODELSCOPE = "ms:"
"""Before the id of a model of ModelScope; without it an id is of the Hugging Face hub."""

_MODELSCOPE_HOSTS = frozenset({"modelscope.cn", "www.modelscope.cn", "modelscope.ai", "www.modelscope.ai"})
_HOSTS = frozenset({"huggingface.co", "www.huggingface.co", "hf.co"})
_OTHER_KINDS = frozenset({"datasets", "spaces", "collections", "api"})
# A revision has no slash, unless it is one that the hub itself makes, such as refs/pr/1.
_REVISION_AND_FOLDER = re.compile(r"(refs/(?:pr|convert)/[^/]+|[^/]+)(?:/(.+))?")


@dataclass(frozen=True)
class HubName:
    """revision: commit, branch or tag; None for the newest. subfolder: None for the root."""

    repo_id: str
    revision: str | None = None
    subfolder: str | None = None
    modelscope: bool = False

    @property
    def source(self) -> str:
        """The repository as reports name it."""
        return f"{MODELSCOPE}{self.repo_id}" if self.modelscope else self.repo_id

    def __str__(self) -> str:
        return self.source if self.subfolder is None else f"{self.source}/{self.subfolder}"


def page_of(source: str) -> str:
    """The address of a repository that is named as reports do."""
    if source.startswith(MODELSCOPE):
        return f"https://modelscope.cn/models/{source.removeprefix(MODELSCOPE)}"
    return f"https://huggingface.co/{source}"


def is_address(model: str) -> bool:
    """Whether `model` is a URL, or one of a hub from which the browser has left out `https://`."""
    return model.startswith(("https://", "http://")) or model.split("/")[0] in _HOSTS | _MODELSCOPE_HOSTS


def parse_hub_name(model: str) -> HubName:
    """Take apart `org/name`, `org/name/folder`, `org/name@revision`, `org/name@revision/folder` or an address.

    `ms:` before any but an address names a model of ModelScope. Raises CheckpointError for what names no model.
    """
    if model.startswith(MODELSCOPE):
        name = replace(_from_id(model.removeprefix(MODELSCOPE)), modelscope=True)
    else:
        name = _from_address(model) if is_address(model) else _from_id(model)
    if name.subfolder is not None and not {"", ".", ".."}.isdisjoint(name.subfolder.split("/")):
        raise CheckpointError(f"{model}: {name.subfolder} cannot be a folder of a hub model")
    return name


def _from_id(model: str) -> HubName:
    path, at, rest = model.partition("@")
    owner, _, path = path.partition("/")
    name, _, subfolder = path.partition("/")
    if not (owner and name):
        raise CheckpointError(f"there is no folder {model}, and a model of the hub is called org/name")
    if at and not rest:
        raise CheckpointError(f"{model}: no revision stands after the @; write org/name@revision")
    repo_id = f"{owner}/{name}"
    if subfolder or not at:
        return HubName(repo_id, rest or None, subfolder or None)
    return HubName(repo_id, *_revision_and_folder(rest, model))


def _from_address(address: str) -> HubName:
    host, path = _host_and_path(address if "://" in address else f"https://{address}")
    if host in _MODELSCOPE_HOSTS:
        raise CheckpointError(f"{address}: a model of ModelScope is named ms:org/name, with @revision and /folder")
    own, _ = _host_and_path(os.environ.get("HF_ENDPOINT", ""))
    owner, name, kind, rest = [*path.strip("/").split("/", 3), "", "", ""][:4]
    known = host in {*_HOSTS, own} - {""} and owner not in _OTHER_KINDS and name != ""
    if not known or (kind, bool(rest)) not in {("", False), ("tree", True)}:
        raise CheckpointError(
            f"{address} is not the address of a hub model or of a folder in one: "
            "these are https://huggingface.co/org/name and https://huggingface.co/org/name/tree/revision/folder"
        )
    if not kind:
        return HubName(f"{owner}/{name}")
    revision, subfolder = _revision_and_folder(rest, address)
    return HubName(f"{owner}/{name}", unquote(revision), subfolder and unquote(subfolder))


def _host_and_path(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.netloc.lower(), parts.path


def _revision_and_folder(text: str, model: str) -> tuple[str, str | None]:
    found = _REVISION_AND_FOLDER.fullmatch(text)
    if found is None:
        raise CheckpointError(f"{model}: {text} is no revision, nor revision/folder")
    return found[1], found[2]
