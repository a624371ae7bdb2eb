"""Which runtime is to read, and which runtimes' numbers may stand beside each other. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

from hyocr_core.errors import BadInputError
from hyocr_core.evaluation.scores.result import Runtime

Kind: TypeAlias = Literal["auto", "transformers", "dequant", "vllm", "endpoint"]
FORMS = "auto, transformers, dequant, vllm, or the URL of an OpenAI-compatible endpoint"
_KINDS: dict[str, Kind] = {
    "auto": "auto",
    "transformers": "transformers",
    "dequant": "dequant",
    "vllm": "vllm",
}


@dataclass(frozen=True)
class Backend:
    """What the user chose. url: of an endpoint, up to and including its `/v1`, without a slash at the end."""

    kind: Kind
    url: str = ""

    @property
    def only_text(self) -> bool:
        """Whether it returns text and nothing to compare next tokens by."""
        return self.kind in ("vllm", "endpoint")

    def runtime(self, *, quantized: bool) -> Runtime:
        """What this backend reads a checkpoint with."""
        match self.kind:
            case "vllm" | "endpoint":
                return self.kind
            case "auto" | "dequant" if quantized:
                return "dequant"
            case _:
                return "transformers"


AUTO = Backend("auto")


def parse_backend(text: str) -> Backend:
    """Understand `--backend`. Raises BadInputError for anything that is not one of FORMS."""
    if text in _KINDS:
        return Backend(_KINDS[text])
    if "://" not in text:
        raise BadInputError(f"unknown backend {text!r}; give {FORMS}")
    try:
        parts = urlsplit(text)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise BadInputError(f"backend {_without_user(text)}: is no URL such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise BadInputError(
            f"backend {_without_user(text)}: a URL without user, query and fragment, please; the key of an endpoint "
            "goes into the environment variable HYOCR_API_KEY"
        )
    return Backend("endpoint", text.rstrip("/"))


def _without_user(url: str) -> str:
    """The URL up to its path, for an error message: user, password and query may be secrets."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.partition('?')[0].partition('#')[0].rpartition('@')[2]}"


def check_runtimes(model: tuple[Runtime, bool], baseline: tuple[Runtime, bool], *, cross_runtime: bool) -> None:
    """Refuse to compare what two runtimes read, unless that is asked for.

    model, baseline: runtime, and whether the checkpoint is quantized. hyocr's unpacked weights run in Transformers'
    own model, so a full-precision checkpoint in Transformers is what they are compared with.
    """
    if cross_runtime or model[0] == baseline[0]:
        return
    if {model[0], baseline[0]} == {"transformers", "dequant"} and not (model[1] and baseline[1]):
        return
    raise BadInputError(
        f"the model is read by {model[0]} and the baseline by {baseline[0]}: what differs may come from the runtimes; "
        "give both the same --backend, or --cross-runtime to compare all the same"
    )
