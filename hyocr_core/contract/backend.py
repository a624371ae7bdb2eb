"""What a backend is: a class that an entry point in the group `hyocr.backends` names. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

from hyocr_core.contract.config import FrozenModel
from hyocr_core.contract.decoding import Decoding

if TYPE_CHECKING:
    from PIL.Image import Image

ENTRY_POINT_GROUP = "hyocr.backends"

Forward: TypeAlias = Literal["reference", "transformers"]
"""What a model computes: `reference`, as Tencent's own code has it; `transformers`, as the port in Transformers has it,
which rotates image tokens and places patches otherwise."""

FORWARDS: tuple[Forward, ...] = get_args(Forward)

SETTINGS = ("max_new_tokens", "repetition_penalty")
"""Fields of a Decoding that only the backend itself can do something about."""


class BackendConfig(FrozenModel):
    """Options of a backend; its own derive from this, each with a description.

    Keys `python` and `timeout` are filled from the evaluation's own of that name.
    """


@dataclass(frozen=True)
class ModelToRead:
    """What a backend reads with.

    name: what the user calls it. folder: of its files; None where a backend needs none and the name is no folder.
    processor: Transformers' processor of the checkpoint; None where no files are here.
    decoding: how answers are to be written. The core cuts loops itself; a backend that can may stop at once.
    at_once: the most pages that the user wants read at the same time; None leaves it to the backend.
    max_tokens: most of prompt and answer together, as the checkpoint says; None where no files are here.
    """

    name: str
    folder: Path | None
    processor: Any | None
    decoding: Decoding
    at_once: int | None
    max_tokens: int | None = None

    @property
    def max_new_tokens(self) -> int:
        """The limit of `decoding`."""
        return self.decoding.max_new_tokens

    @property
    def repetition_penalty(self) -> float:
        """That of `decoding`; 1 where it is left to what reads."""
        return self.decoding.repetition_penalty or 1.0

    def room(self, page: PageToRead) -> int:
        """Most tokens of the answer to this page: the limit, or what its prompt leaves of the context; 1 at least."""
        if self.max_tokens is None or page.prompt_tokens is None:
            return self.max_new_tokens
        return max(min(self.max_new_tokens, self.max_tokens - page.prompt_tokens), 1)

    def longest(self, pages: Sequence[PageToRead]) -> int:
        """Most tokens that the prompt of one of these pages and its answer have together, within the context."""
        longest = max((page.prompt_tokens or 0) + self.room(page) for page in pages)
        return longest if self.max_tokens is None else min(longest, self.max_tokens)


@dataclass(frozen=True)
class PageToRead:
    """A page.

    index: its number. name: what messages call it.
    messages: the conversation that asks for its text, as the model's own clients send it: a system turn, which is a
        string, and the user's, which is parts, the image as `{"type": "image"}`.
    prompt, prompt_tokens: the same as the checkpoint's own template and processor write it; None without files.
    open_image: reads its pixels.
    """

    index: int
    name: str
    messages: Sequence[Mapping[str, Any]]
    prompt: str | None
    prompt_tokens: int | None
    open_image: Callable[[], Image]


@dataclass(frozen=True)
class PageAnswer:
    """What came of a page.

    index: the page's. text: what was read, without special tokens; None: nothing was, and `reason` says why.
    tokens: written, the end of sequence included. ended: by itself, not at the limit of tokens.
    seconds: it took; None: those since the answer before.
    """

    index: int
    text: str | None
    tokens: int = 0
    ended: bool = True
    seconds: float | None = None
    reason: str = ""


class AnyBackend:
    """What all backends say of themselves. A third party derives from `Backend`, which returns text.

    Those that compute next-token distributions in hyocr's own process are the core's.

    api_version: the number of the contract it was written for, as a literal.
    config_class: its options.
    needs_files: whether it reads a checkpoint's files; otherwise the model may be any name that the backend knows.
    honours: what it does of `ModelToRead.decoding`; an evaluation that asks for anything else of SETTINGS is refused.
    """

    api_version: ClassVar[int]
    config_class: ClassVar[type[BackendConfig]] = BackendConfig
    needs_files: ClassVar[bool] = True
    honours: ClassVar[tuple[str, ...]] = SETTINGS


class Backend(AnyBackend, ABC):
    """Reads pages with a checkpoint and returns text.

    Made once for each checkpoint that it reads, before any page is; an error in `__init__` refuses the evaluation.
    """

    def __init__(self, config: Any, model: ModelToRead) -> None:
        """config: an instance of `config_class`."""
        self.config = config
        self.model = model

    @property
    def identity(self) -> Mapping[str, str]:
        """Beside the checkpoint's files and the options, what the answers depend on, such as a version; recorded."""
        return {}

    @property
    def forward(self) -> Forward | None:
        """What the model computes in it; None where that is not known. Recorded, and compared only with its like."""
        return None

    @abstractmethod
    def read(self, pages: Sequence[PageToRead], say: Callable[[str], None]) -> Iterator[PageAnswer]:
        """Read these pages, greedily; yield an answer for each, in any order.

        A page that cannot be read gets an answer with a reason, and the others go on. An error ends the evaluation;
        what was yielded before is kept. say: shows a line to the user.
        """


@dataclass(frozen=True)
class TimedAnswer:
    """What came of a page, and when, by `time.monotonic()`.

    index: the page's. tokens: written, the end of sequence included. asked, done: when it was asked for, and whole.
    first: when its first token was there; None where nobody asked for that.
    """

    index: int
    tokens: int
    asked: float
    first: float | None
    done: float


class Serving(ABC):
    """A checkpoint that is loaded and ready to be read with, as `ServingBackend.serve` gives it."""

    @property
    def processes(self) -> Sequence[int]:
        """Of this machine that serve it, by their ids; those that they started are found. None if it is elsewhere."""
        return ()

    @abstractmethod
    def read(self, pages: Sequence[PageToRead], at_once: int) -> Iterator[TimedAnswer]:
        """Read these pages, `at_once` of them at any time while there are so many; yield an answer for each.

        What is asked is made before the first page is asked for, so that the clock sees what serves and nothing else.
        An error ends the measurement.
        """


class ServingBackend(Backend):
    """A backend whose speed can be measured, since it can be kept ready between readings."""

    @abstractmethod
    def serve(
        self, pages: Sequence[PageToRead], at_once: int, say: Callable[[str], None], *, first_token: bool
    ) -> AbstractContextManager[Serving]:
        """Make ready for these pages, so many at once; the end of `with` stops what this started.

        first_token: whether it is to be known when the first token of an answer is there.
        Raises BadInputError for what cannot be asked of it.
        """
