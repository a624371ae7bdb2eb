"""What a backend is: a class that an entry point in the group `hyocr.backends` names. Imports no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeAlias, get_args

from hyocr_core.contract.config import FrozenModel

if TYPE_CHECKING:
    from PIL.Image import Image

ENTRY_POINT_GROUP = "hyocr.backends"

Forward: TypeAlias = Literal["reference", "transformers"]
"""What a model computes: `reference`, as Tencent's own code has it; `transformers`, as the port in Transformers has it,
which rotates image tokens and places patches otherwise."""

FORWARDS: tuple[Forward, ...] = get_args(Forward)


class BackendConfig(FrozenModel):
    """Options of a backend; its own derive from this, each with a description.

    Keys `python` and `timeout` are filled from the evaluation's own of that name.
    """


@dataclass(frozen=True)
class ModelToRead:
    """What a backend reads with.

    name: what the user calls it. folder: of its files; None where a backend needs none and the name is no folder.
    processor: Transformers' processor of the checkpoint; None where no files are here.
    max_new_tokens: most tokens of an answer. at_once: the most pages that the user wants read at the same time; None
    leaves it to the backend.
    max_tokens: most of prompt and answer together, and repetition_penalty, as the checkpoint says; None and 1 for a
    backend that needs no files.
    """

    name: str
    folder: Path | None
    processor: Any | None
    max_new_tokens: int
    at_once: int | None
    max_tokens: int | None = None
    repetition_penalty: float = 1.0


@dataclass(frozen=True)
class PageToRead:
    """A page.

    index: its number. name: what messages call it.
    messages: the conversation that asks for its text, in the form of chat templates, the image as `{"type": "image"}`.
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
    """

    api_version: ClassVar[int]
    config_class: ClassVar[type[BackendConfig]] = BackendConfig
    needs_files: ClassVar[bool] = True


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
