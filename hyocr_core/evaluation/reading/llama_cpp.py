"""The backend `llama.cpp`: its server, which is started on a checkpoint's GGUF files, and stopped."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from hyocr_core.checkpoint.reader import digest
from hyocr_core.contract.backend import (
    BackendConfig,
    Forward,
    ModelToRead,
    PageAnswer,
    PageToRead,
    Serving,
    ServingBackend,
)
from hyocr_core.errors import CheckpointError, RunError
from hyocr_core.evaluation.reading.chats import Chats
from hyocr_core.evaluation.reading.servers import Servers
from hyocr_core.evaluation.reading.timed import EndpointServing
from hyocr_core.runtimes.chat_requests import llama_fields
from hyocr_core.runtimes.endpoint import Endpoint
from hyocr_core.runtimes.llama_installed import find_llama_server
from hyocr_core.runtimes.llama_server import GgufFiles, LlamaServer

ONE_BY_ONE = 1
"""Every page that is read at once takes its keys and values of a whole context."""


class LlamaCppConfig(BackendConfig):
    """Options of `llama.cpp`."""

    program: Path | None = Field(None, description="llama-server; by default that on the PATH, else xllamacpp")
    timeout: Annotated[float, Field(gt=0, description="seconds to wait for a page")] = 600


class LlamaCpp(ServingBackend):
    """llama.cpp, one page at a time unless the user asks for several.

    Raises MissingRuntimeError where there is no llama.cpp, CheckpointError for a folder without its GGUF files.
    """

    api_version: ClassVar[int] = 1
    config_class: ClassVar[type[BackendConfig]] = LlamaCppConfig

    def __init__(self, config: LlamaCppConfig, model: ModelToRead) -> None:
        super().__init__(config, model)
        if model.folder is None or model.max_tokens is None:
            raise CheckpointError(f"{model.name}: llama.cpp needs the checkpoint's files")
        self._files, self._most, self._timeout = GgufFiles.of(model.folder), model.max_tokens, config.timeout
        self._program = find_llama_server(config.program)

    @cached_property
    def _digests(self) -> Mapping[str, str]:
        return {path.name: digest(path) for path in (self._files.text, self._files.vision)}

    @property
    def identity(self) -> Mapping[str, str]:
        return {"llama.cpp": self._program.version, **self._digests}

    @property
    def forward(self) -> Forward | None:
        return "reference"

    def read(self, pages: Sequence[PageToRead], say: Callable[[str], None]) -> Iterator[PageAnswer]:
        at_once = self.model.at_once or ONE_BY_ONE
        with self._started(pages, at_once, say) as server:
            for answer in Servers([self._chats(server)], [at_once]).read(pages, say):
                if answer.text is None and server.reason():
                    raise RunError(f"llama.cpp: {server.reason()}")
                yield answer

    @contextmanager
    def serve(
        self, pages: Sequence[PageToRead], at_once: int, say: Callable[[str], None], *, first_token: bool
    ) -> Iterator[Serving]:
        with self._started(pages, at_once, say) as server:
            chats = self._chats(server)
            try:
                yield EndpointServing(chats.endpoint, chats.body, [server.number], first_token=first_token)
            except RunError as error:
                why = server.reason()
                if why:
                    raise RunError(f"llama.cpp: {why}") from error
                raise

    def _started(self, pages: Sequence[PageToRead], at_once: int, say: Callable[[str], None]) -> LlamaServer:
        say(f"llama.cpp {self._program.version} loads {self._files.text}")
        return LlamaServer(self._program, self._files, self.model.longest(pages), at_once)

    def _chats(self, server: LlamaServer) -> Chats:
        further = llama_fields(self.model.repetition_penalty, self._most)
        return Chats(Endpoint(server.url, self._timeout), self.model, self._files.text.name, further)
