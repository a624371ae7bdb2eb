"""From what the user calls a model to a folder on this machine. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from hyocr_core.checkpoint import huggingface, modelscope
from hyocr_core.checkpoint.hub_name import HubName, is_address, parse_hub_name
from hyocr_core.errors import CheckpointError
from hyocr_core.outside.home import expanded


@dataclass(frozen=True)
class ResolvedModel:
    """A checkpoint folder; for one from a hub also its id, the commit that was fetched, and the folder in it.

    repo_id: with `ms:` in front for one of ModelScope.
    """

    folder: Path
    repo_id: str | None
    revision: str | None
    subfolder: str | None = None

    @property
    def name(self) -> str:
        """What messages call it."""
        return str(self.folder) if self.repo_id is None else str(HubName(self.repo_id, None, self.subfolder))


def resolve_model(model: str, revision: str | None = None) -> ResolvedModel:
    """Find the folder of `model`: a local folder, or a model on the Hugging Face hub or ModelScope; see
    `parse_hub_name`.

    A local folder goes first. A hub model is downloaded, only the files of the folder that is named, or taken from the
    hub's cache when HF_HUB_OFFLINE is set or the hub cannot be reached.
    revision: commit, branch or tag of a hub model that names none itself.
    Raises CheckpointError of one line when there is no such model or it cannot be had.
    """
    if not model:
        raise CheckpointError("the model's name is empty: give a folder, or org/name for a model of the hub")
    folder = expanded(model)
    if not is_address(model) and (folder.exists() or _looks_like_path(model)):
        return _local(folder, revision)
    name = parse_hub_name(model)
    if revision is not None:
        if name.revision not in (None, revision):
            raise CheckpointError(f"two revisions are given: {name.revision} in {model}, and {revision}; leave one out")
        name = replace(name, revision=revision)
    found = modelscope.fetch(name) if name.modelscope else huggingface.fetch(name)
    return ResolvedModel(found.snapshot / (name.subfolder or ""), name.source, found.revision, name.subfolder)


def _looks_like_path(model: str) -> bool:
    return model.startswith((".", "/", "~")) or model.endswith("/")


def _local(folder: Path, revision: str | None) -> ResolvedModel:
    if not folder.is_dir():
        state = "is a file, not the folder of a checkpoint" if folder.exists() else "does not exist"
        raise CheckpointError(f"the model folder {folder} {state}")
    if revision is not None:
        raise CheckpointError(f"a revision ({revision}) can be chosen for a hub model only; {folder} is a local folder")
    return ResolvedModel(folder, None, None)
