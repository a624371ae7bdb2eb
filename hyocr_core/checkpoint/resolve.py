"""From what the user calls a model to a folder on this machine. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from hyocr_core.errors import CheckpointError

_ALLOWED = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model", "LICENSE*", "License*", "NOTICE*", "README.md"]
# Patterns match whole paths: this leaves out every sub folder, such as an older model under `v1.0/`.
_IGNORED = ["*/*"]


@dataclass(frozen=True)
class ResolvedModel:
    """A checkpoint folder; for one from the hub also its id and the commit that was fetched."""

    folder: Path
    repo_id: str | None
    revision: str | None


def resolve_model(model: str, revision: str | None = None) -> ResolvedModel:
    """Find the folder of `model`: a local folder, or the id `org/name` of a model on the Hugging Face hub.

    A local folder goes first. A hub model is downloaded, or taken from the cache when HF_HUB_OFFLINE is set.
    Raises CheckpointError of one line when there is no such model or it cannot be had.
    """
    if not model:
        raise CheckpointError("the model's name is empty: give a folder, or org/name for a model of the hub")
    folder = Path(model).expanduser()
    if folder.exists() or _looks_like_path(model):
        return _local(folder, revision)
    if model.count("/") != 1:
        raise CheckpointError(f"there is no folder {model}, and a model of the hub is called org/name")
    snapshot = _download(model, revision)
    return ResolvedModel(snapshot, model, snapshot.name)


def _looks_like_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.endswith("/") or model.count("/") > 1


def _local(folder: Path, revision: str | None) -> ResolvedModel:
    if not folder.is_dir():
        state = "is a file, not the folder of a checkpoint" if folder.exists() else "does not exist"
        raise CheckpointError(f"the model folder {folder} {state}")
    if revision is not None:
        raise CheckpointError(f"a revision ({revision}) can be chosen for a hub model only; {folder} is a local folder")
    return ResolvedModel(folder, None, None)


def _download(repo_id: str, revision: str | None) -> Path:
    # Imported late: `hyocr --help` must stay instant.
    from huggingface_hub import snapshot_download

    # Of the HTTP client, httpx or httpx2 as huggingface_hub chose.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    try:
        return Path(snapshot_download(repo_id, revision=revision, allow_patterns=_ALLOWED, ignore_patterns=_IGNORED))
    except (OSError, ValueError, HTTPError) as error:
        raise CheckpointError(_explain(repo_id, revision, error)) from error


def _explain(repo_id: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import constants, errors

    url = f"{constants.ENDPOINT}/{repo_id}"
    if isinstance(error, errors.HFValidationError):
        return f"there is no folder {repo_id}, and it cannot be the id of a hub model either"
    if isinstance(error, errors.GatedRepoError):
        return f"{repo_id} is gated: accept its licence at {url}, then run `hf auth login`"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"there is no folder {repo_id}, and no such model at {url}; if it is private, run `hf auth login` first"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repo_id} has no revision {revision}; see {url}/commits"
    if constants.is_offline_mode() and isinstance(error, errors.LocalEntryNotFoundError):
        return (
            f"there is no folder {repo_id}, and no whole copy in {constants.HF_HUB_CACHE} while HF_HUB_OFFLINE is set: "
            "unset that, or give a local folder"
        )
    reason = next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)
    return (
        f"there is no folder {repo_id}, and {constants.ENDPOINT} does not give it ({reason}): "
        "check the network, or give a local folder"
    )
