"""Models of ModelScope, fetched by its own library; extra `hyocr-core[modelscope]`."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from hyocr_core.checkpoint.fetched import ANSWER_SECONDS, CONNECT_SECONDS, Fetched, patterns
from hyocr_core.checkpoint.hub_name import HubName
from hyocr_core.errors import CheckpointError, one_line
from hyocr_core.progress import asking

NEWEST = "master"
"""The branch that ModelScope takes where no revision is named."""

_COMMIT = re.compile(r"[0-9a-f]{40}")


def fetch(name: HubName) -> Fetched:
    """Download the folder that is named, or take it from ModelScope's cache when the hub does not answer.

    The revision is the commit as far as the hub tells it: the last that changed a file. From the cache it is the branch
    or tag that the cache was filled with, or None where an old version of the library filled it.
    Raises CheckpointError of one line.
    """
    library = _library()
    try:
        api, files = _ask(library, name)
    except (library.HubError, OSError) as error:
        return _cached(library, name, error)
    if not files:
        # For a revision that it does not have the hub lists no file, and tells of no error.
        raise CheckpointError(f"{name} has no revision {name.revision or NEWEST}; see {_page(library, name)}")
    if name.subfolder is not None and not any(_path(file).startswith(f"{name.subfolder}/") for file in files):
        raise CheckpointError(
            f"ms:{name.repo_id} has no folder {name.subfolder} with a checkpoint at revision "
            f"{name.revision or NEWEST}; see {_page(library, name)}"
        )
    wanted = patterns(name.subfolder)
    try:
        snapshot = api.download_repo(
            name.repo_id,
            "model",
            revision=name.revision,
            allow_patterns=wanted.allowed,
            ignore_patterns=wanted.ignored,
            file_list=files,
        )
    except (library.HubError, OSError) as error:
        raise CheckpointError(_explain(library, name, error)) from error
    return Fetched(snapshot, _commit(name, files))


def _library() -> Any:
    # Imported late: it is an extra, and `hyocr --help` must stay instant.
    try:
        library = import_module("modelscope_hub")
    except ImportError as error:
        raise CheckpointError(
            "a model of ModelScope (ms:org/name) needs its library: pip install 'hyocr-core[modelscope]'"
        ) from error
    # What it logs is said in one line here.
    logging.getLogger("modelscope_hub").setLevel(logging.CRITICAL)
    return library


def _ask(library: Any, name: HubName) -> tuple[Any, list[dict[str, Any]]]:
    """The client of the site that has the model, and every file of the revision as that site lists it."""
    # The library's own client, so that proxies and certificates are the same; but the library tries again for minutes.
    import requests

    endpoint = library.get_default_config().endpoint
    with asking(endpoint, "a local folder works without it"):
        requests.head(endpoint, timeout=(CONNECT_SECONDS, ANSWER_SECONDS), allow_redirects=False)
    api = library.HubApi(endpoint=library.HubApi().resolve_endpoint_for_read(name.repo_id))
    return api, api.legacy.list_repo_files(name.repo_id, "model", revision=name.revision or NEWEST)


def _cached(library: Any, name: HubName, silent: Exception) -> Fetched:
    try:
        snapshot = library.HubApi().download_repo(name.repo_id, "model", revision=name.revision, local_files_only=True)
    except library.CacheError as error:
        raise CheckpointError(_explain(library, name, silent)) from error
    if not (snapshot / (name.subfolder or "") / "config.json").is_file():
        raise CheckpointError(_explain(library, name, silent)) from silent
    if snapshot.as_posix().endswith(f"/snapshots/{name.revision or snapshot.name}"):
        return Fetched(snapshot, name.revision or snapshot.name)
    if name.revision is not None:
        raise CheckpointError(f"{snapshot} does not tell of which revision it is; {_explain(library, name, silent)}")
    return Fetched(snapshot, None)


def _commit(name: HubName, files: Sequence[dict[str, Any]]) -> str:
    if name.revision is not None and _COMMIT.fullmatch(name.revision):
        return name.revision
    dated = [file for file in files if file.get("Revision") and isinstance(file.get("CommittedDate"), int)]
    newest = max(dated, key=lambda file: int(file["CommittedDate"]), default={})
    return str(newest.get("Revision") or name.revision or NEWEST)


def _path(file: dict[str, Any]) -> str:
    return str(file.get("Path") or "")


def _page(library: Any, name: HubName) -> str:
    return f"{library.get_default_config().endpoint}/models/{name.repo_id}/files"


def _explain(library: Any, name: HubName, error: Exception) -> str:
    repo_id, endpoint = f"ms:{name.repo_id}", library.get_default_config().endpoint
    page = f"{endpoint}/models/{name.repo_id}"
    if isinstance(error, library.NotExistError):
        return f"there is no model {repo_id} at {page}; if it is private, run `modelscope login`"
    if isinstance(error, library.AuthenticationError | library.PermissionDeniedError):
        return f"{endpoint} refuses {repo_id}: run `modelscope login`, and accept the licence at {page} if it has one"
    return (
        f"{endpoint} does not give {name} ({_why(library, error)}): check the network; a local folder, or a cache that "
        "`modelscope download` has filled, works without it"
    )


def _why(library: Any, error: Exception) -> str:
    if isinstance(error, library.HubError):
        # Without the answer's body, which its text has too.
        return one_line(Exception(error.message))
    # requests wraps what urllib3 raised, which has the reason.
    return one_line(next((arg.reason for arg in error.args if hasattr(arg, "reason")), error))
