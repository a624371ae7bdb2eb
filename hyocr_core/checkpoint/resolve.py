"""From what the user calls a model to a folder on this machine. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from glob import escape
from pathlib import Path
from typing import Any

from hyocr_core.checkpoint.hub_name import HubName, is_address, parse_hub_name
from hyocr_core.errors import CheckpointError

CONNECT_SECONDS = 3
"""To wait for a connection to each of the hub's addresses; the client itself would wait for minutes."""

ANSWER_SECONDS = 30

_ALLOWED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "LICENSE*", "License*", "NOTICE*", "README.md"]
# Patterns match whole paths: this leaves out every sub folder, such as an older model under `v1.0/`.
_IGNORED = "*/*"


@dataclass(frozen=True)
class ResolvedModel:
    """A checkpoint folder; for one from the hub also its id, the commit that was fetched, and the folder in it."""

    folder: Path
    repo_id: str | None
    revision: str | None
    subfolder: str | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.folder) if self.repo_id is None else str(HubName(self.repo_id, None, self.subfolder))


def resolve_model(model: str, revision: str | None = None) -> ResolvedModel:
    """Find the folder of `model`: a local folder, or a model on the Hugging Face hub; see `parse_hub_name`.

    A local folder goes first. A hub model is downloaded, only the files of the folder that is named, or taken from the
    cache when HF_HUB_OFFLINE is set or the hub cannot be reached.
    revision: commit, branch or tag of a hub model that names none itself.
    Raises CheckpointError of one line when there is no such model or it cannot be had.
    """
    if not model:
        raise CheckpointError("the model's name is empty: give a folder, or org/name for a model of the hub")
    folder = Path(model).expanduser()
    if not is_address(model) and (folder.exists() or _looks_like_path(model)):
        return _local(folder, revision)
    name = parse_hub_name(model)
    if revision is not None:
        if name.revision not in (None, revision):
            raise CheckpointError(f"two revisions are given: {name.revision} in {model}, and {revision}; leave one out")
        name = replace(name, revision=revision)
    snapshot = _fetch(name)
    return ResolvedModel(snapshot / (name.subfolder or ""), name.repo_id, snapshot.name, name.subfolder)


def _looks_like_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.endswith("/")


def _local(folder: Path, revision: str | None) -> ResolvedModel:
    if not folder.is_dir():
        state = "is a file, not the folder of a checkpoint" if folder.exists() else "does not exist"
        raise CheckpointError(f"the model folder {folder} {state}")
    if revision is not None:
        raise CheckpointError(f"a revision ({revision}) can be chosen for a hub model only; {folder} is a local folder")
    return ResolvedModel(folder, None, None)


def _fetch(name: HubName) -> Path:
    """The snapshot that holds the files of the folder that is named, and of no other."""
    # Imported late: `hyocr --help` must stay instant.
    from huggingface_hub import snapshot_download

    # Of the HTTP client, httpx or httpx2 as huggingface_hub chose.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    silent = _ask(name)
    inside = "" if name.subfolder is None else f"{escape(name.subfolder)}/"
    try:
        snapshot = Path(
            snapshot_download(
                name.repo_id,
                revision=name.revision,
                local_files_only=silent is not None,
                allow_patterns=[inside + pattern for pattern in _ALLOWED],
                ignore_patterns=[inside + _IGNORED],
            )
        )
    except (OSError, ValueError, HTTPError) as error:
        raise CheckpointError(_explain(name, silent or error)) from error
    if name.subfolder is not None and not (snapshot / name.subfolder).is_dir():
        raise CheckpointError(_no_folder(name, snapshot.name) if silent is None else _explain(name, silent)) from silent
    return snapshot


def _ask(name: HubName) -> Exception | None:
    """Why the hub does not tell of a model, soon; None if it does. Raises CheckpointError for an unknown revision."""
    from huggingface_hub import HfApi, get_session
    from huggingface_hub.errors import HTTPError, RevisionNotFoundError  # type: ignore[attr-defined]

    # One number would hold for slow answers too; the class is that of the client which huggingface_hub chose.
    timeout: Any = type(get_session().timeout)(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    try:
        HfApi().model_info(name.repo_id, revision=name.revision, timeout=timeout)
    except RevisionNotFoundError as error:
        raise CheckpointError(_explain(name, error)) from error
    except (OSError, ValueError, HTTPError) as error:
        return error
    return None


def _no_folder(name: HubName, commit: str) -> str:
    from huggingface_hub import constants

    return (
        f"{name.repo_id} has no folder {name.subfolder} with a checkpoint at revision {name.revision or 'main'}; "
        f"see {constants.ENDPOINT}/{name.repo_id}/tree/{commit}"
    )


def _explain(name: HubName, error: Exception) -> str:
    from huggingface_hub import constants, errors

    repo_id, url = name.repo_id, f"{constants.ENDPOINT}/{name.repo_id}"
    if isinstance(error, errors.HFValidationError):
        return f"there is no folder {name}, and {repo_id} cannot be the id of a hub model either"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo_id} is gated: accept its licence at {url}, then run `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return (
            f"there is no folder {name}, and no such model at {url}; "
            "if it is private or gated, run `hf auth login` and accept its licence there"
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo_id} has no revision {name.revision}; see {url}/commits"
    if isinstance(error, errors.HfHubHTTPError) and error.response.status_code in (401, 403):
        return (
            f"{constants.ENDPOINT} refuses {repo_id} ({error.response.status_code}): "
            f"run `hf auth login`, and accept the licence at {url} if it asks for that"
        )
    if isinstance(error, errors.OfflineModeIsEnabled):
        wanted = "" if name.revision is None else f" of revision {name.revision}"
        return (
            f"there is no folder {name}, and no whole copy{wanted} in {constants.HF_HUB_CACHE} while HF_HUB_OFFLINE is "
            "set: unset that, or give a local folder"
        )
    reason = next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)
    return (
        f"there is no folder {name}, and {constants.ENDPOINT} does not give it ({reason}): check the network; "
        "a local folder, or a cache that `hf download` has filled, works without it"
    )
