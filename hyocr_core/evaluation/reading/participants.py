"""Who reads the pages: the checkpoints of an evaluation, and what each is read with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from hyocr_core.checkpoint.reader import CheckpointReader
from hyocr_core.checkpoint.resolve import ResolvedModel, resolve_model
from hyocr_core.errors import BadInputError, CheckpointError
from hyocr_core.evaluation.reading.backend import AUTO, Backend, check_runtimes, parse_backend
from hyocr_core.evaluation.reading.endpoint import Endpoint
from hyocr_core.evaluation.reading.generate import DEFAULT_MAX_NEW_TOKENS, greedy_config
from hyocr_core.evaluation.reading.local import Entry
from hyocr_core.evaluation.reading.remote import EndpointReader, TextReader, VllmReader
from hyocr_core.evaluation.scores.result import Role
from hyocr_core.models.dequantized import DequantizedCheckpoint
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import open_weights
from hyocr_core.models.rounded import RoundedCheckpoint
from hyocr_core.pages.processor import load_processor
from hyocr_core.runtimes.native import check_native

SECONDS = 600.0


@dataclass(frozen=True)
class Backends:
    """What reads the model and the baseline; baseline: None takes the model's.

    python: the interpreter that has vLLM; None for this one. timeout: seconds to wait for a page of an endpoint.
    cross_runtime: compare them even if their runtimes differ.
    """

    model: Backend = AUTO
    baseline: Backend | None = None
    python: Path | None = None
    timeout: float = SECONDS
    cross_runtime: bool = False

    @classmethod
    def named(
        cls, model: str, baseline: str | None, *, python: Path | None, timeout: float, cross_runtime: bool
    ) -> Backends:
        """From what the user wrote. Raises BadInputError for what is no backend."""
        chosen = None if baseline is None else parse_backend(baseline)
        return cls(parse_backend(model), chosen, python, timeout, cross_runtime)

    def of(self, role: Role) -> Backend:
        return self.model if role == "model" or self.baseline is None else self.baseline


@dataclass(frozen=True)
class Participants:
    """Everyone who reads.

    sources: the checkpoints whose files are here. entries: those to be read in this process. texts: the others.
    processor: the model's, or that of the baseline if the model's files are elsewhere; None if no files are here.
    max_new_tokens: the model's limit of tokens, which holds for all.
    """

    sources: Mapping[Role, ResolvedModel]
    entries: Mapping[Role, Entry]
    texts: Mapping[Role, TextReader]
    processor: Any
    max_new_tokens: int

    @property
    def identity(self) -> dict[str, str]:
        """Beside files and pages, what the answers depend on."""
        named = {role: {"runtime": entry.runtime} for role, entry in self.entries.items()}
        known = named | {role: dict(reader.identity) for role, reader in self.texts.items()}
        return {f"{role} {key}": value for role, of_role in known.items() for key, value in of_role.items()}


def gather(
    names: Mapping[Role, str], backends: Backends, *, rounded: bool, max_new_tokens: int | None, at_once: int
) -> Participants:
    """Find and check everyone; no weights are read yet, but an endpoint is asked what it serves.

    names: what the user calls the model and, if there is one, the baseline. rounded: let the baseline's weights read,
    too, rounded to nearest in the model's format. at_once: pages an endpoint is asked at the same time.
    Raises BadInputError for a checkpoint or a runtime that cannot be used, or that must not be compared.
    """
    chosen = {role: backends.of(role) for role in names}
    sources = {role: source for role, name in names.items() if (source := _find(name, chosen[role])) is not None}
    _check_comparable(names, chosen, sources, backends, rounded=rounded)
    processor = next((load_processor(source.folder) for source in sources.values()), None)
    _check_same_tokens(sources, processor)
    entries = {role: _entry(sources[role], chosen[role]) for role in names if not chosen[role].only_text}
    if rounded:
        weights = RoundedCheckpoint(entries["baseline"].weights, entries["model"].weights)
        entries["rounded"] = Entry(entries["baseline"].source, weights, entries["model"].stored)
    limit = max_new_tokens or _own_limit(sources.get("model"))
    texts: dict[Role, TextReader] = {}
    for role in (role for role in names if chosen[role].only_text):
        if chosen[role].kind == "vllm":
            texts[role] = VllmReader(sources[role], processor, backends.python, limit)
        else:
            endpoint = Endpoint(chosen[role].url, backends.timeout)
            texts[role] = EndpointReader(endpoint, names[role], sources.get(role), limit, at_once=at_once)
    _refuse_itself(texts)
    return Participants(sources, entries, texts, processor, limit)


def _find(name: str, backend: Backend) -> ResolvedModel | None:
    """The files of a checkpoint; an endpoint needs none, but its folder may be given as its name."""
    if backend.kind == "endpoint" and not Path(name).expanduser().is_dir():
        return None
    return resolve_model(name)


def _check_comparable(
    names: Mapping[Role, str],
    chosen: Mapping[Role, Backend],
    sources: Mapping[Role, ResolvedModel],
    backends: Backends,
    *,
    rounded: bool,
) -> None:
    if rounded and "baseline" not in names:
        raise BadInputError("rounding to nearest needs the full-precision weights: give a baseline")
    if rounded and any(backend.only_text for backend in chosen.values()):
        raise BadInputError("what is rounded to nearest can be read with --backend auto, transformers and dequant only")
    if "baseline" in names:
        quantized = {role: _is_quantized(sources.get(role)) for role in names}
        model, baseline = ((chosen[role].runtime(quantized=quantized[role]), quantized[role]) for role in names)
        check_runtimes(model, baseline, cross_runtime=backends.cross_runtime)


def _is_quantized(source: ResolvedModel | None) -> bool:
    return source is not None and bool(CheckpointReader(source.folder).config.get("quantization_config"))


def _check_same_tokens(sources: Mapping[Role, ResolvedModel], processor: Any | None) -> None:
    if processor is not None and sources.keys() >= {"model", "baseline"}:
        model, baseline = (sources[role].folder for role in ("model", "baseline"))
        if load_processor(baseline).tokenizer.get_vocab() != processor.tokenizer.get_vocab():
            raise other_tokens(model, baseline)


def other_tokens(model: Path, baseline: Path) -> CheckpointError:
    """The error for checkpoints whose tokens are not the same."""
    return CheckpointError(f"{baseline}: has another vocabulary than {model}; the baseline must have the same tokens")


def _entry(source: ResolvedModel, backend: Backend) -> Entry:
    weights = open_weights(source.folder)
    native = backend.kind == "transformers"
    if native and isinstance(weights, DequantizedCheckpoint):
        try:
            check_native(weights.formats, weights.shapes)
        except BadInputError as error:
            raise type(error)(f"{source.folder}: {error}; --backend dequant reads it without") from error
    return Entry(source, weights, source.folder, native)


def _own_limit(source: ResolvedModel | None) -> int:
    if source is None:
        return DEFAULT_MAX_NEW_TOKENS
    model = HunYuanVL(open_weights(source.folder), torch.device("meta"))
    config: Any = greedy_config(source.folder, model.config.text_config, None)
    return int(config.max_new_tokens)


def _refuse_itself(texts: Mapping[Role, TextReader]) -> None:
    """An endpoint that serves one model would be compared with itself."""
    seen = [reader.identity for reader in texts.values() if "served" in reader.identity]
    if len(seen) == 2 and seen[0] == seen[1]:
        raise BadInputError(
            f"model and baseline are both {seen[0]['served']} at {seen[0]['endpoint']}; give the URL of the baseline's "
            "own endpoint with --baseline-backend"
        )
