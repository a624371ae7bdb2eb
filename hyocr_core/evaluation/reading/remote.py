"""Checkpoints that are read by vLLM or by an endpoint: page by page, text and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch

from hyocr_core.checkpoint.resolve import ResolvedModel
from hyocr_core.errors import BadInputError, RunError
from hyocr_core.evaluation.reading.endpoint import Completion, Endpoint, NoAnswerError, Served
from hyocr_core.evaluation.reading.generate import greedy_config
from hyocr_core.evaluation.reading.kept import BatchReading
from hyocr_core.evaluation.reading.parallel import as_done
from hyocr_core.evaluation.scores.metrics import ends_in_loop, normalize
from hyocr_core.evaluation.scores.score import Answer, Checkpoint
from hyocr_core.models.hunyuan_vl import HunYuanVL
from hyocr_core.models.load import open_weights
from hyocr_core.models.parts import stored_bytes
from hyocr_core.pages.checked import TextPage
from hyocr_core.pages.images import png_base64
from hyocr_core.pages.prompts import Message, chat
from hyocr_core.runtimes.vllm_process import VllmProcess, vllm_version


@dataclass(frozen=True)
class PageText:
    """What came of a page: what was read, or the reason why nothing was."""

    index: int
    reading: BatchReading | None
    reason: str = ""


class TextReader(Protocol):
    """A checkpoint in a runtime that returns text. identity: beside its files, what its answers depend on."""

    identity: Mapping[str, str]

    def read(self, pages: Sequence[TextPage], say: Callable[[str], None]) -> Iterator[PageText]:
        """Read pages, in any order; one that cannot be read does not end it. say: shows a line to the user."""
        ...

    def checkpoint(self, seconds: float) -> Checkpoint:
        """What is said of it when it has read for this long."""
        ...


class VllmReader:
    """vLLM in a process of its own, one page after the other. Raises MissingRuntimeError where there is none."""

    def __init__(self, source: ResolvedModel, processor: Any, python: Path | None, max_new_tokens: int) -> None:
        model = HunYuanVL(open_weights(source.folder), torch.device("meta"))
        self._config = greedy_config(source.folder, model.config.text_config, max_new_tokens)
        self._most = model.max_tokens
        self._source = source
        self._tokenizer = processor.tokenizer
        self._python = python
        self._max_new_tokens = max_new_tokens
        self.identity: Mapping[str, str] = {"runtime": "vllm", "vllm": vllm_version(python)}

    def read(self, pages: Sequence[TextPage], say: Callable[[str], None]) -> Iterator[PageText]:
        longest = max(page.prompt_tokens or 0 for page in pages) + self._max_new_tokens
        say(f"vLLM {self.identity['vllm']} loads {self._source.folder}")
        with VllmProcess(self._source.folder, self._python, min(longest, self._most)) as vllm:
            for page in pages:
                yield PageText(page.index, self._read(page, vllm))

    def _read(self, page: TextPage, vllm: VllmProcess) -> BatchReading:
        image, penalty = page.open_image(), self._config.repetition_penalty or 1.0
        found = vllm.read(page.prompt or "", image, self._max_new_tokens, repetition_penalty=penalty)
        if len(found.prompt) != page.prompt_tokens:
            raise RunError(
                f"{page.record.name}: vLLM makes {len(found.prompt)} tokens of the prompt, the checkpoint's processor "
                f"{page.prompt_tokens}: the Transformers beside that vLLM is another"
            )
        text = self._tokenizer.decode(found.tokens, skip_special_tokens=True)
        return _reading(text, len(found.tokens), found.seconds, ended=found.ended)

    def checkpoint(self, seconds: float) -> Checkpoint:
        weight_bytes, by_part = stored_bytes(self._source.folder)
        return Checkpoint(
            model=self._source.repo_id or str(self._source.folder),
            revision=self._source.revision,
            runtime="vllm",
            weight_bytes=weight_bytes,
            part_bytes=by_part,
            seconds=seconds,
            first_token_seconds=None,
        )


class EndpointReader:
    """An OpenAI-compatible endpoint, several pages at once.

    model: the name of what is served, or the folder of the checkpoint that is. Raises BadInputError if the endpoint
    does not answer, or serves nothing of that name.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        model: str,
        source: ResolvedModel | None,
        max_new_tokens: int,
        *,
        at_once: int,
    ) -> None:
        self._model = model
        self._endpoint = endpoint
        self._served = choose_served(endpoint.models(), model, source, endpoint.url)
        self.identity: Mapping[str, str] = {"runtime": "endpoint", "endpoint": endpoint.url, "served": self._served}
        self._at_once = at_once
        self._max_new_tokens = max_new_tokens

    def read(self, pages: Sequence[TextPage], say: Callable[[str], None]) -> Iterator[PageText]:
        asked = ((page, self._body(page)) for page in pages)
        before, warned = time.perf_counter(), False
        for page, found in as_done(lambda ask: (ask[0], self._ask(ask[1])), asked, self._at_once):
            now = time.perf_counter()
            if isinstance(found, str):
                yield PageText(page.index, None, found)
            else:
                warned = warned or self._warn(page, found, say)
                tokens = found.usage.completion_tokens
                yield PageText(page.index, _reading(found.text, tokens, now - before, ended=found.ended))
            before = now

    def _body(self, page: TextPage) -> dict[str, Any]:
        url = f"data:image/png;base64,{png_base64(page.open_image())}"
        return {
            "model": self._served,
            "messages": [_with_image(message, url) for message in chat(page.record, with_answer=False)],
            "temperature": 0,
            "max_tokens": self._max_new_tokens,
        }

    def _ask(self, body: dict[str, Any]) -> Completion | str:
        try:
            return self._endpoint.chat(body)
        except NoAnswerError as error:
            return f"{self._endpoint.url}: {error}"

    def _warn(self, page: TextPage, found: Completion, say: Callable[[str], None]) -> bool:
        """Whether the prompt has another length there than here, which is worth one line."""
        if page.prompt_tokens in (None, found.usage.prompt_tokens):
            return False
        say(
            f"warning: {page.record.name}: the endpoint makes {found.usage.prompt_tokens} tokens of the prompt, the "
            f"checkpoint's processor {page.prompt_tokens}: template, image processor or tokenizer are others there"
        )
        return True

    def checkpoint(self, seconds: float) -> Checkpoint:
        return Checkpoint(
            model=self._model,
            revision=None,
            runtime="endpoint",
            weight_bytes=None,
            part_bytes={},
            seconds=seconds,
            first_token_seconds=None,
        )


def choose_served(served: Sequence[Served], model: str, source: ResolvedModel | None, url: str) -> str:
    """The name of the served model that is meant. Raises BadInputError that lists what there is."""
    names = [each.id for each in served]
    if model in names:
        return model
    if source is not None:
        folders = {str(source.folder.absolute()), str(source.folder.resolve())}
        same = [each.id for each in served if each.root is not None and str(Path(each.root).absolute()) in folders]
        if len(same or names) == 1:
            return (same or names)[0]
    listed = ", ".join(names) or "nothing"
    raise BadInputError(f"{url} does not serve {model}; it serves {listed}: give one of these as the model")


def _with_image(message: Message, url: str) -> Message:
    """The message as OpenAI's protocol writes it, with the pixels in the place of each placeholder."""
    image = {"type": "image_url", "image_url": {"url": url}}
    return {**message, "content": [image if part["type"] == "image" else part for part in message["content"]]}


def _reading(text: str, tokens: int, seconds: float, *, ended: bool) -> BatchReading:
    answer = Answer(normalize(text), tokens, ended, ends_in_loop(text))
    return BatchReading(answers=(answer,), seconds=seconds, first_token=None)
