"""Upload a quantized checkpoint to the Hugging Face hub. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hyocr_core.checkpoint.reader import CheckpointReader, digest
from hyocr_core.errors import BadInputError, CheckpointError, OutputError, RunError

if TYPE_CHECKING:
    from huggingface_hub import HfApi

WEIGHTS = ("*.safetensors", "*.safetensors.index.json")
LEFT_OUT = [".*", "*/*"]


@dataclass(frozen=True)
class Pushed:
    """Where the upload can be seen. commit: its hash, empty when everything was there already."""

    url: str
    commit: str


def push(folder: Path, repo_id: str, *, private: bool, message: str | None, replace: bool) -> Pushed:
    """Upload the files of `folder` to the model `repo_id`, which is created if it is not there.

    replace: take the place of weights that the model already holds; its history keeps them.
    Raises CheckpointError for a folder that is no quantized checkpoint, OutputError for a model that holds weights,
    BadInputError when the hub knows no user or refuses this one, RunError when the upload fails.
    """
    reader = CheckpointReader(folder)
    if not reader.config.get("quantization_config"):
        raise CheckpointError(f"{folder / 'config.json'}: has no quantization_config: push what hyocr quant wrote")
    # Imported late: `hyocr --help` must stay instant.
    from huggingface_hub import HfApi

    # Of the HTTP client, httpx or httpx2 as huggingface_hub chose.
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    api = HfApi()
    try:
        # Not asked to be private, it is what its organization's settings say.
        url = str(api.create_repo(repo_id, private=private or None, exist_ok=True))
        if not replace:
            _refuse_weights(api, repo_id, folder)
        done = api.upload_folder(
            repo_id=repo_id,
            folder_path=folder,
            commit_message=message or f"Upload {folder.resolve().name}, quantized by hyocr",
            ignore_patterns=list(LEFT_OUT),
            # Shards that the new index does not name would be loaded by no one and paid for by everyone.
            delete_patterns=list(WEIGHTS),
        )
    except (OSError, ValueError, HTTPError) as error:
        raise _explained(repo_id, error) from error
    return Pushed(url, done.oid)


def _refuse_weights(api: HfApi, repo_id: str, folder: Path) -> None:
    """Refuse a model that holds weights of its own; what an interrupted upload of `folder` left there is welcome."""
    for entry in api.list_repo_tree(repo_id, recursive=True):
        if not Path(entry.path).match(WEIGHTS[0]):
            continue
        own, stored = folder / entry.path, getattr(entry, "lfs", None)
        if stored is None or not own.is_file() or digest(own) != stored.sha256:
            raise OutputError(
                f"{repo_id} holds weights already ({entry.path}): give another name, or --replace to take their place; "
                "the model's history keeps them"
            )


def _explained(repo_id: str, error: Exception) -> BadInputError | RunError:
    from huggingface_hub import constants, errors

    if isinstance(error, OutputError):
        return error
    if isinstance(error, errors.HFValidationError):
        return BadInputError(f"{repo_id!r} cannot be the id of a hub model; write user/name")
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403) or isinstance(error, errors.LocalTokenNotFoundError):
        return BadInputError(
            f"{constants.ENDPOINT} does not let you write {repo_id} ({status or 'no token'}): "
            "run `hf auth login` with a token that may write there"
        )
    reason = next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)
    return RunError(f"the upload to {constants.ENDPOINT}/{repo_id} failed ({reason}); run the same command again")
