"""Checks of what reading depends on beside the weights, against the original's: settings, tokenizer, processor.

Other tools write these files anew, in another order and with other blanks, so that what they mean is compared.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import torch

from hyocr_core.checkpoint.reader import CONFIG_NAME, CheckpointReader, digest
from hyocr_core.checkpoint.shards import INDEX_NAME
from hyocr_core.errors import CheckpointError
from hyocr_core.models.hunyuan_vl import PublishedModel
from hyocr_core.outside.json_text import read_object
from hyocr_core.pages.processor import load_processor
from hyocr_core.verification.faults import Fault, Findings
from hyocr_core.verification.subject import Subject

GENERATION = "generation_config.json"
UNREAD = {
    *("transformers_version", "_name_or_path", "_from_model_config", "use_cache", "dtype"),
    *("image_processor_type", "processor_class", "truncation", "padding", "version"),
    # Whether a head is there that has to be is asked of the tensors.
    "tie_word_embeddings",
}
"""Keys of all these files that say nothing of how a page is read."""
SHOWN = 60
FEW = 5
"""So many differences of a file are told; of another vocabulary there are as many as it has words."""


def check_settings(subject: Subject, original: CheckpointReader, changed: Collection[str]) -> Iterator[Fault]:
    """config.json, but for quantization_config and what the method has `changed`, and generation_config.json."""
    before = PublishedModel(original, torch.device("meta")).config.to_dict()
    due = {key: value for key, value in before.items() if key not in changed}
    yield from _compare(CONFIG_NAME, due, subject.model.config.to_dict())
    if (original.folder / GENERATION).is_file():
        if not (subject.reader.folder / GENERATION).is_file():
            yield Fault(GENERATION, "is missing, the original has it")
            return
        then, now = (read_object(each.folder / GENERATION, CheckpointError) for each in (original, subject.reader))
        yield from _compare(GENERATION, dict.fromkeys(now) | then, now)


def check_processor(subject: Subject, original: CheckpointReader, findings: Findings) -> None:
    """Tokenizer, chat template and image processor."""
    if _files(subject.reader) == _files(original):
        return
    try:
        due = load_processor(original.folder)
    except CheckpointError as error:
        findings.notes.append(f"tokenizer, chat template and image processor were not compared: {error}")
        return
    try:
        findings.faults += _processor_faults(due, load_processor(subject.reader.folder))
    except CheckpointError as error:
        findings.faults.append(Fault(subject.reader.folder.name, str(error)))


def _processor_faults(due: Any, found: Any) -> Iterator[Fault]:
    written = (json.loads(each.tokenizer.backend_tokenizer.to_str()) for each in (due, found))
    yield from _compare("tokenizer.json", *written)
    special = (dict(each.tokenizer.special_tokens_map) for each in (due, found))
    yield from _compare("tokenizer_config.json", *special)
    if due.chat_template != found.chat_template:
        yield Fault("chat_template.jinja", "is not the original's chat template")
    images = (json.loads(json.dumps(each.image_processor.to_dict(), default=str)) for each in (due, found))
    yield from _compare("preprocessor_config.json", *images)


def _compare(place: str, due: Mapping[str, Any], found: Mapping[str, Any]) -> Iterator[Fault]:
    """A fault for each of the first keys of `due` that have another value in `found`."""
    problems = list(_differences(due, found))
    yield from (Fault(place, problem) for problem in problems[:FEW])
    if len(problems) > FEW:
        yield Fault(place, f"differs from the original's in {len(problems) - FEW} more values")


def _differences(due: Mapping[str, Any], found: Mapping[str, Any], above: str = "") -> Iterator[str]:
    for key, value in due.items():
        now, name = found.get(key), f"{above}{key}"
        if key in UNREAD or now == value:
            continue
        if isinstance(value, Mapping) and isinstance(now, Mapping):
            yield from _differences(dict.fromkeys(now) | dict(value), now, f"{name}.")
        else:
            yield f"{name} is {_show(now)}, in the original {_show(value)}"


def _files(reader: CheckpointReader) -> dict[str, str]:
    """The digests of the files that `check_processor` is about."""
    others = {CONFIG_NAME, GENERATION, INDEX_NAME, *(info.shard for info in reader.tensors.values())}
    return {name: digest(reader.folder / name) for name in reader.read_names() if name not in others}


def _show(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."
