"""Who reads the pages: the checkpoints of an evaluation, and what each is read with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hyocr_core.checkpoint.resolve import resolve_model
from hyocr_core.contract.backend import Forward, ModelToRead
from hyocr_core.errors import BadInputError, CheckpointError
from hyocr_core.evaluation.reading.choice import ChosenBackend, check_runtimes
from hyocr_core.evaluation.reading.generate import DEFAULT_MAX_NEW_TOKENS
from hyocr_core.evaluation.reading.in_process import InProcess
from hyocr_core.evaluation.reading.local import Entry
from hyocr_core.evaluation.reading.opened import Opened
from hyocr_core.evaluation.reading.texts import TextReader
from hyocr_core.evaluation.scores.result import Role
from hyocr_core.models.rounded import RoundedCheckpoint
from hyocr_core.runtimes.vllm_forward import REMEDY
from hyocr_core.settings.eval_config import EvalConfig


@dataclass(frozen=True)
class Participants:
    """Everyone who reads.

    sources: the checkpoints whose files are here. entries: those to be read in this process. texts: the others.
    processor: the model's, or that of the baseline if the model's files are elsewhere; None if no files are here.
    max_new_tokens: the model's limit of tokens, which holds for all.
    """

    sources: Mapping[Role, Opened]
    entries: Mapping[Role, Entry]
    texts: Mapping[Role, TextReader]
    processor: Any
    max_new_tokens: int

    def other_forwards(self, wanted: Forward) -> list[str]:
        """A line on each runtime that is known to compute another forward."""
        lines = (_other_forward(reader, wanted) for reader in self.texts.values())
        return list(dict.fromkeys(line for line in lines if line is not None))

    @property
    def identity(self) -> dict[str, str]:
        """Beside files and pages, what the answers depend on."""
        named = {role: {"runtime": entry.runtime, "forward": entry.forward} for role, entry in self.entries.items()}
        known = named | {role: dict(reader.identity) for role, reader in self.texts.items()}
        return {f"{role} {key}": value for role, of_role in known.items() for key, value in of_role.items()}


def _other_forward(reader: TextReader, wanted: Forward) -> str | None:
    found = reader.backend.forward
    if found is None or found == wanted:
        return None
    remedy = f": {REMEDY}" if found == "transformers" else ""
    return f"{reader.who} computes the {found} forward, not the {wanted} one{remedy}"


def gather(config: EvalConfig, chosen: Mapping[Role, ChosenBackend]) -> Participants:
    """Find and check everyone; no weights are read yet, but an endpoint is asked what it serves.

    chosen: what reads the model and, if there is one, the baseline.
    Raises BadInputError for a checkpoint or a runtime that cannot be used, or that must not be compared.
    """
    names: dict[Role, str] = {"model": config.model}
    if config.rival is not None:
        names["baseline"] = config.rival
    own = {"model"} if len(config.forward) == 1 else set(names)
    revisions = {role: config.revision if role in own else None for role in names}
    found = {role: _find(name, chosen[role], revisions[role]) for role, name in names.items()}
    sources = {role: opened for role, opened in found.items() if opened is not None}
    _check_comparable(config, chosen, sources)
    processor = next((opened.processor for opened in sources.values()), None)
    _check_same_tokens(sources)
    forwards: dict[Role, Forward] = {"model": config.forward[-1], "baseline": config.forward[0]}
    entries: dict[Role, Entry] = {}
    for role, backend in chosen.items():
        if issubclass(backend.cls, InProcess):
            entries[role] = replace(backend.cls.entry(sources[role]), forward=forwards[role])
    if config.rounded:
        weights = RoundedCheckpoint(entries["baseline"].weights, entries["model"].weights)
        entries["rounded"] = Entry(
            entries["baseline"].source, weights, entries["model"].stored, forward=forwards["model"]
        )
    limit = config.max_new_tokens or _own_limit(sources.get("model"))
    texts: dict[Role, TextReader] = {}
    for role, backend in chosen.items():
        if backend.only_text:
            texts[role] = _text_reader(backend, names[role], sources.get(role), limit, config.batch_size)
    _refuse_itself(texts)
    return Participants(sources, entries, texts, processor, limit)


def _find(name: str, backend: ChosenBackend, revision: str | None) -> Opened | None:
    """The files of a checkpoint; a backend that needs none may be given their folder as the model's name."""
    if not backend.needs_files and not Path(name).expanduser().is_dir():
        if revision is not None:
            raise BadInputError(f"a revision ({revision}) cannot be chosen with {backend.who}, which reads no files")
        return None
    return Opened(resolve_model(name, revision))


def _check_comparable(config: EvalConfig, chosen: Mapping[Role, ChosenBackend], sources: Mapping[Role, Opened]) -> None:
    if len(config.forward) > 1 and any(backend.only_text for backend in chosen.values()):
        raise BadInputError("both forwards can be read with --backend auto, transformers and dequant only")
    if config.rounded and any(backend.only_text for backend in chosen.values()):
        raise BadInputError("what is rounded to nearest can be read with --backend auto, transformers and dequant only")
    if "baseline" in chosen:
        quantized = {role: role in sources and sources[role].quantized for role in chosen}
        model, baseline = ((chosen[role].runtime(quantized=quantized[role]), quantized[role]) for role in chosen)
        check_runtimes(model, baseline, cross_runtime=config.cross_runtime)


def _check_same_tokens(sources: Mapping[Role, Opened]) -> None:
    if sources.keys() >= {"model", "baseline"}:
        model, baseline = sources["model"], sources["baseline"]
        if baseline.processor.tokenizer.get_vocab() != model.processor.tokenizer.get_vocab():
            raise other_tokens(model.folder, baseline.folder)


def other_tokens(model: Path, baseline: Path) -> CheckpointError:
    """The error for checkpoints whose tokens are not the same."""
    return CheckpointError(f"{baseline}: has another vocabulary than {model}; the baseline must have the same tokens")


def _own_limit(opened: Opened | None) -> int:
    return DEFAULT_MAX_NEW_TOKENS if opened is None else int(opened.generation.max_new_tokens)


def _text_reader(
    backend: ChosenBackend, name: str, opened: Opened | None, limit: int, at_once: int | None
) -> TextReader:
    folder, processor = (None, None) if opened is None else (opened.folder, opened.processor)
    model = ModelToRead(name, folder, processor, limit, at_once)
    if backend.needs_files and opened is not None:
        penalty = opened.generation.repetition_penalty or 1.0
        model = ModelToRead(name, folder, processor, limit, at_once, opened.shape.max_tokens, penalty)
    files = opened.source if backend.needs_files and opened is not None else None
    return TextReader(backend.who, backend.name, backend.start(model), name, files)


def _refuse_itself(texts: Mapping[Role, TextReader]) -> None:
    """An endpoint that serves one model would be compared with itself."""
    seen = [reader.identity for reader in texts.values() if "served" in reader.identity]
    if len(seen) == 2 and seen[0] == seen[1]:
        raise BadInputError(
            f"model and baseline are both {seen[0]['served']} at {seen[0]['endpoint']}; give the URL of the baseline's "
            "own endpoint with --baseline-backend"
        )
