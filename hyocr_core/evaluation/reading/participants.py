"""Who reads the pages: the checkpoints of an evaluation, and what each is read with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hyocr_core.checkpoint.resolve import resolve_model
from hyocr_core.contract.backend import Forward, ModelToRead
from hyocr_core.contract.decoding import Decoding
from hyocr_core.errors import BadInputError, CheckpointError
from hyocr_core.evaluation.reading.choice import ChosenBackend, check_runtimes
from hyocr_core.evaluation.reading.in_process import InProcess
from hyocr_core.evaluation.reading.local import Entry
from hyocr_core.evaluation.reading.opened import Opened
from hyocr_core.evaluation.reading.texts import TextReader
from hyocr_core.evaluation.scores.result import Role
from hyocr_core.models.own_decoding import MAX_NEW_TOKENS
from hyocr_core.models.rounded import RoundedCheckpoint
from hyocr_core.outside.home import expanded
from hyocr_core.runtimes.whose_forward import other_forward
from hyocr_core.settings.eval_config import EvalConfig
from hyocr_core.settings.shared import as_asked

ELSEWHERE = Decoding(repetition_penalty=None, max_new_tokens=MAX_NEW_TOKENS, stop_loops=True)
"""How what serves a checkpoint writes if no files say more; what is None is not asked for."""

WITHOUT = {
    "repetition_penalty": "give --repetition-penalty 1 to read without, or another backend",
    "max_new_tokens": "leave --max-new-tokens out, or give another backend",
}


@dataclass(frozen=True)
class Participants:
    """Everyone who reads.

    sources: the checkpoints whose files are here. entries: those to be read in this process. texts: the others.
    processor: the model's, or that of the baseline if the model's files are elsewhere; None if no files are here.
    decoding: how the model writes, and so do all; as the baseline does if the model's files are elsewhere.
    """

    sources: Mapping[Role, Opened]
    entries: Mapping[Role, Entry]
    texts: Mapping[Role, TextReader]
    processor: Any
    decoding: Decoding

    @property
    def read_from(self) -> list[Opened]:
        """The sources whose weights are read, by this process or a backend."""
        files = {role for role, reader in self.texts.items() if reader.files is not None}
        return [opened for role, opened in self.sources.items() if role in self.entries or role in files]

    @property
    def max_tokens(self) -> int | None:
        """The most that all whose files are here take of a prompt and its answer."""
        return min((opened.shape.max_tokens for opened in self.sources.values()), default=None)

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
    return other_forward(reader.who, found, wanted, is_vllm=reader.runtime == "vllm")


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
    found = {role: _find(name, chosen[role], revisions[role], config.max_pixels) for role, name in names.items()}
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
    first = next(iter(sources.values()), None)
    decoding = as_asked(ELSEWHERE if first is None else first.decoding, config)
    _check_honoured(config, chosen, decoding)
    texts: dict[Role, TextReader] = {}
    for role, backend in chosen.items():
        if backend.only_text:
            texts[role] = _text_reader(backend, names[role], sources.get(role), decoding, config.batch_size)
    _refuse_itself(texts)
    return Participants(sources, entries, texts, processor, decoding)


def _find(name: str, backend: ChosenBackend, revision: str | None, max_pixels: int | None) -> Opened | None:
    """The files of a checkpoint; a backend that needs none may be given their folder as the model's name."""
    if not backend.needs_files and not expanded(name).is_dir():
        if revision is not None:
            raise BadInputError(f"a revision ({revision}) cannot be chosen with {backend.who}, which reads no files")
        return None
    return Opened(resolve_model(name, revision), max_pixels)


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


def _check_honoured(config: EvalConfig, chosen: Mapping[Role, ChosenBackend], decoding: Decoding) -> None:
    """Raise BadInputError for a setting that a backend can do nothing about.

    A limit counts if the user gave it, a penalty also if the checkpoint has it; a penalty of 1 asks for nothing.
    """
    penalty = None if decoding.repetition_penalty == 1 else decoding.repetition_penalty
    asked = {"repetition_penalty": penalty, "max_new_tokens": config.max_new_tokens}
    for backend in chosen.values():
        for key, value in asked.items():
            if value is not None and key not in backend.cls.honours:
                raise BadInputError(f"{backend.who} cannot honour {key}={value:g}: {WITHOUT[key]}")


def _text_reader(
    backend: ChosenBackend, name: str, opened: Opened | None, decoding: Decoding, at_once: int | None
) -> TextReader:
    model = ModelToRead(name, None, None, decoding, at_once)
    if opened is not None:
        model = ModelToRead(name, opened.folder, opened.processor, decoding, at_once, opened.shape.max_tokens)
    files = opened.source if backend.needs_files and opened is not None else None
    return TextReader(backend.who, backend.name, backend.start(model), name, files, decoding)


def _refuse_itself(texts: Mapping[Role, TextReader]) -> None:
    """An endpoint that serves one model would be compared with itself."""
    seen = [reader.identity for reader in texts.values() if "served" in reader.identity]
    if len(seen) < 2 or seen[0]["served"] != seen[1]["served"]:
        return
    model, baseline = (each["endpoint"].split(",") for each in seen)
    both = next((url for url in model if url in baseline), None)
    if both is not None:
        raise BadInputError(
            f"model and baseline are both {seen[0]['served']} at {both}; give the URL of the baseline's "
            "own endpoint with --baseline-backend"
        )
