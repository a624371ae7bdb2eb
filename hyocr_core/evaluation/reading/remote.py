"""The backends that read in another process and return text: vLLM and endpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, ClassVar

from pydantic import Field

from hyocr_core.contract.backend import (
    BackendConfig,
    Forward,
    ModelToRead,
    PageAnswer,
    PageToRead,
    Serving,
    ServingBackend,
)
from hyocr_core.contract.decoding import Decoding
from hyocr_core.contract.page_source import Record
from hyocr_core.errors import BadInputError, CheckpointError, RunError
from hyocr_core.evaluation.reading.chats import Chats
from hyocr_core.evaluation.reading.parallel import as_done
from hyocr_core.evaluation.reading.servers import Servers
from hyocr_core.evaluation.reading.timed import EndpointServing, VllmServing
from hyocr_core.pages.prompts import chat
from hyocr_core.runtimes.concurrency import MAX_NEW_TOKENS, try_concurrency
from hyocr_core.runtimes.endpoint import Endpoint, NoAnswerError, Served
from hyocr_core.runtimes.server_memory import listening
from hyocr_core.runtimes.vllm_installed import find_vllm
from hyocr_core.runtimes.vllm_pair import INSTALL
from hyocr_core.runtimes.vllm_process import VllmAnswer, VllmProcess, VllmRequest

AT_ONCE = 8
"""Pages that are read at the same time, unless the user says otherwise, where that changes nothing but the time."""


class VllmConfig(BackendConfig):
    """Options of `vllm`."""

    python: Path | None = Field(None, description="interpreter that has vLLM; this one by default")


class Vllm(ServingBackend):
    """vLLM in a process of its own, several pages at once where its versions keep them apart.

    Raises MissingRuntimeError where there is none, BadInputError when one that mixes up pages is to read several.
    """

    api_version: ClassVar[int] = 1
    config_class: ClassVar[type[BackendConfig]] = VllmConfig

    def __init__(self, config: VllmConfig, model: ModelToRead) -> None:
        super().__init__(config, model)
        if model.folder is None or model.max_tokens is None:
            raise CheckpointError(f"{model.name}: vLLM needs the checkpoint's files")
        self._folder = model.folder
        self._python = config.python
        found = find_vllm(config.python)
        self._pair, self._forward = found.pair, found.forward
        if not self._pair.sound and (model.at_once or 1) > 1:
            raise BadInputError(f"{self._pair.warning}, here --batch-size 1")
        self._at_once = model.at_once or (AT_ONCE if self._pair.sound else 1)

    @property
    def identity(self) -> Mapping[str, str]:
        versions = {"vllm": self._pair.vllm, "vllm transformers": str(self._pair.transformers)}
        return versions | {"vllm forward": str(self._forward)}

    @property
    def forward(self) -> Forward | None:
        return self._forward

    def read(self, pages: Sequence[PageToRead], say: Callable[[str], None]) -> Iterator[PageAnswer]:
        if not self._pair.sound:
            say(f"one page at a time: {self._pair.warning}")
        say(f"vLLM {self._pair.vllm} loads {self._folder}")
        with VllmProcess(self._folder, self._python, self.model.longest(pages), self._at_once) as vllm:
            for answer in vllm.read(map(self.request, pages)):
                yield self._page_answer(pages[answer.number], answer)

    @contextmanager
    def serve(
        self, pages: Sequence[PageToRead], at_once: int, say: Callable[[str], None], *, first_token: bool
    ) -> Iterator[Serving]:
        if not self._pair.sound and at_once > 1:
            raise BadInputError(f"{self._pair.warning}, here --at-once 1")
        say(f"vLLM {self._pair.vllm} loads {self._folder}")
        with VllmProcess(self._folder, self._python, self.model.longest(pages), at_once, fast=True) as vllm:
            yield VllmServing(vllm, self.request, first_token=first_token)

    def request(self, page: PageToRead, *, timed: bool = False) -> VllmRequest:
        """What vLLM is asked about a page."""
        return VllmRequest(
            page.prompt or "",
            page.open_image(),
            self.model.room(page),
            repetition_penalty=self.model.repetition_penalty,
            stop_token_ids=self.model.decoding.stop_token_ids,
            timed=timed,
        )

    def _page_answer(self, page: PageToRead, found: VllmAnswer) -> PageAnswer:
        if len(found.prompt) != page.prompt_tokens:
            raise RunError(
                f"{page.name}: vLLM makes {len(found.prompt)} tokens of the prompt, the checkpoint's processor "
                f"{page.prompt_tokens}: the Transformers beside that vLLM is another"
            )
        processor: Any = self.model.processor
        text = processor.tokenizer.decode(found.tokens, skip_special_tokens=True)
        return PageAnswer(page.index, text, len(found.tokens), ended=found.ended, seconds=found.seconds)


class EndpointConfig(BackendConfig):
    """Options of `endpoint`."""

    url: str = Field(description="up to and including its /v1; several, joined by commas, share the pages")
    timeout: Annotated[float, Field(gt=0, description="seconds to wait for a page")] = 600


class OpenAiEndpoint(ServingBackend):
    """OpenAI-compatible endpoints, several pages at once where that changes no answer, which is tried first.

    The model is the name of what is served, or the folder of the checkpoint that is. One of several servers may fail;
    the others then read its pages. Raises BadInputError if no endpoint answers, or one serves nothing of that name, or
    is to read several pages at once and answers otherwise then.
    """

    api_version: ClassVar[int] = 1
    config_class: ClassVar[type[BackendConfig]] = EndpointConfig
    needs_files: ClassVar[bool] = False

    def __init__(self, config: EndpointConfig, model: ModelToRead) -> None:
        super().__init__(config, model)
        found, gone = self._reach(config)
        self._gone = gone
        self._chats = [
            Chats(endpoint, model, choose_served(served, model.name, model.folder, endpoint.url), self._further)
            for endpoint, served in found
        ]
        names = dict.fromkeys(chats.served for chats in self._chats)
        if len(names) > 1:
            raise BadInputError(f"{config.url} serve different models, {' and '.join(names)}; give those of one")
        for chats in self._chats:
            self._check_penalty(chats)
        self._doubts = ["" if model.at_once == 1 else self._try_concurrency(chats) for chats in self._chats]
        self._at_once = [model.at_once or (1 if doubt else AT_ONCE) for doubt in self._doubts]

    @property
    def identity(self) -> Mapping[str, str]:
        return {"endpoint": self.config.url, "served": self._chats[0].served}

    @property
    def _further(self) -> dict[str, Any]:
        return further_fields(self.model.decoding)

    def _reach(self, config: EndpointConfig) -> tuple[list[tuple[Endpoint, list[Served]]], list[str]]:
        """The servers that answer, with what they serve, and what those that do not give as their reason."""
        found, gone = [], []
        for url in config.url.split(","):
            endpoint = Endpoint(url, config.timeout)
            try:
                found.append((endpoint, endpoint.models()))
            except BadInputError as error:
                gone.append(error)
        if not found:
            raise gone[0]
        return found, [f"warning: {error}; the other servers read its pages" for error in gone]

    @contextmanager
    def serve(
        self,
        pages: Sequence[PageToRead],  # noqa: ARG002 - it runs already
        at_once: int,  # noqa: ARG002
        say: Callable[[str], None],  # noqa: ARG002
        *,
        first_token: bool,
    ) -> Iterator[Serving]:
        if "," in self.config.url:
            raise BadInputError(f"{self.config.url}: speed is measured of one server: give one URL")
        [chats] = self._chats
        url = chats.endpoint.url
        yield EndpointServing(chats.endpoint, chats.body, listening(url), first_token=first_token)

    def _try_concurrency(self, chats: Chats) -> str:
        """Why pages should be read one by one; empty if they need not be."""
        try:
            trial = try_concurrency(lambda pages: self._texts(chats, pages))
        except NoAnswerError as error:
            return f"a trial page could not be read: {error}"
        if trial.changed and self.model.at_once is not None:
            raise BadInputError(
                f"{chats.endpoint.url}: {trial.finding}: give --batch-size 1, or mend the server; of vLLM: {INSTALL}"
            )
        return trial.finding if trial.changed or not trial.telling else ""

    def _texts(self, chats: Chats, pages: Sequence[Record]) -> list[str]:
        asked = [(number, _to_read(number, page)) for number, page in enumerate(pages)]
        limit = min(self.model.max_new_tokens, MAX_NEW_TOKENS)
        bodies = ((number, chats.body(page) | {"max_tokens": limit}) for number, page in asked)
        answers = as_done(lambda ask: (ask[0], chats.endpoint.chat(ask[1]).text), bodies, len(pages))
        return [text for _, text in sorted(answers)]

    def read(self, pages: Sequence[PageToRead], say: Callable[[str], None]) -> Iterator[PageAnswer]:
        for line in self._gone:
            say(line)
        for chats, at_once, doubt in zip(self._chats, self._at_once, self._doubts, strict=True):
            if doubt and len(pages) > 1:
                why = "because" if at_once == 1 else "although"
                say(f"{chats.endpoint.url}: pages at a time: {at_once}, {why} {doubt}")
        yield from Servers(self._chats, self._at_once).read(pages, say)

    def _check_penalty(self, chats: Chats) -> None:
        """Raise BadInputError for a server that knows no repetition penalty, as it knows no impossible one."""
        penalty = chats.further.get("repetition_penalty", 1)
        if penalty != 1 and not chats.endpoint.refuses(_probe(chats.served)):
            raise BadInputError(
                f"{chats.endpoint.url} cannot honour repetition_penalty={penalty:g}, it ignores the field: "
                "give --repetition-penalty 1 to read without, or a server that knows it, such as vLLM"
            )


def _to_read(number: int, page: Record) -> PageToRead:
    return PageToRead(number, page.name, chat(page, with_answer=False), None, None, page.open_image)


def further_fields(decoding: Decoding) -> dict[str, Any]:
    """What a request says beside OpenAI's own fields, as vLLM and SGLang call it. Loops are cut in what is returned."""
    fields: dict[str, Any] = {}
    if decoding.repetition_penalty is not None:
        fields["repetition_penalty"] = decoding.repetition_penalty
    if decoding.stop_token_ids:
        fields["stop_token_ids"] = list(decoding.stop_token_ids)
    return fields


def _probe(served: str) -> dict[str, Any]:
    """A request that a server refuses if it looks at the penalty."""
    messages = [{"role": "user", "content": "."}]
    return {"model": served, "messages": messages, "max_tokens": 1, "temperature": 0, "repetition_penalty": -1}


def choose_served(served: Sequence[Served], model: str, folder: Path | None, url: str) -> str:
    """The name of the served model that is meant. Raises BadInputError that lists what there is."""
    names = [each.id for each in served]
    if model in names:
        return model
    if folder is not None:
        folders = {str(folder.absolute()), str(folder.resolve())}
        same = [each.id for each in served if each.root is not None and str(Path(each.root).absolute()) in folders]
        if len(same or names) == 1:
            return (same or names)[0]
    listed = ", ".join(names) or "nothing"
    raise BadInputError(f"{url} does not serve {model}; it serves {listed}: give one of these as the model")
