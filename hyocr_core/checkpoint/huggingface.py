"""Models of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hyocr_core.checkpoint.fetched import ANSWER_SECONDS, CONNECT_SECONDS, Fetched, patterns
from hyocr_core.checkpoint.hub_name import HubName
from hyocr_core.errors import CheckpointError
from hyocr_core.progress import asking

ADVICE = "HF_HUB_OFFLINE=1 takes what is in the cache without asking, HF_ENDPOINT names a mirror"


def fetch(name: HubName) -> Fetched:
    """Download the folder that is named, or take it from the cache when offline or the hub does not answer.

    Raises CheckpointError of one line.
    """
    # Imported late: `hyocr --help` must stay instant.
    from huggingface_hub import snapshot_download

    # Of the HTTP client, httpx or httpx2 as huggingface_hub chose.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    silent = _ask(name)
    wanted = patterns(name.subfolder)
    try:
        snapshot = Path(
            snapshot_download(
                name.repo_id,
                revision=name.revision,
                local_files_only=silent is not None,
                allow_patterns=wanted.allowed,
                ignore_patterns=wanted.ignored,
            )
        )
    except (OSError, ValueError, HTTPError) as error:
        raise CheckpointError(_explain(name, silent or error)) from error
    if name.subfolder is not None and not (snapshot / name.subfolder).is_dir():
        raise CheckpointError(_no_folder(name, snapshot.name) if silent is None else _explain(name, silent)) from silent
    return Fetched(snapshot, snapshot.name)


def _ask(name: HubName) -> Exception | None:
    """Why the hub does not tell of a model, soon; None if it does. Raises CheckpointError for an unknown revision."""
    from huggingface_hub import HfApi, constants, get_session
    from huggingface_hub.errors import HTTPError, RevisionNotFoundError  # type: ignore[attr-defined]

    # One number would hold for slow answers too; the class is that of the client which huggingface_hub chose.
    timeout: Any = type(get_session().timeout)(ANSWER_SECONDS, connect=CONNECT_SECONDS)
    try:
        with asking(constants.ENDPOINT, ADVICE):
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
