"""Which backend is to read, and which backends' numbers may stand beside each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hyocr_core.contract.backend import AnyBackend, Backend, BackendConfig, ModelToRead
from hyocr_core.errors import BackendError, BadInputError, HyocrError, one_line
from hyocr_core.evaluation.reading.in_process import Dequant, InProcess
from hyocr_core.evaluation.scores.result import Role, Runtime
from hyocr_core.plugin.backends import installed_backends, load_backend
from hyocr_core.settings.eval_config import EvalConfig

AUTO = "auto"
SHARED = ("python", "timeout")
"""Settings of an evaluation that become options of backends which have such; no answer depends on them."""


@dataclass(frozen=True)
class ChosenBackend:
    """A backend that the user named. who: as messages call it. config: its options."""

    name: str
    who: str
    cls: type[AnyBackend]
    config: BackendConfig

    @property
    def only_text(self) -> bool:
        """Whether it returns text and nothing to compare next tokens by."""
        return issubclass(self.cls, Backend)

    @property
    def needs_files(self) -> bool:
        return self.cls.needs_files

    def runtime(self, *, quantized: bool) -> Runtime:
        """What a result says that such a checkpoint was read by."""
        return self.cls.runtime(quantized=quantized) if issubclass(self.cls, InProcess) else self.name

    def start(self, model: ModelToRead) -> Backend:
        """Make one that returns text ready to read. Raises BackendError naming it, for an error that is not ours."""
        make: Any = self.cls
        try:
            backend: Backend = make(self.config, model)
        except HyocrError:
            raise
        except (Exception, SystemExit) as error:
            raise BackendError(f"{self.who}: cannot start: {one_line(error, named=True)}") from error
        return backend


def choose_backends(config: EvalConfig) -> dict[Role, ChosenBackend]:
    """What reads the model and, if there is one, the baseline.

    Raises BackendError for one that is unknown or broken, ConfigError for wrong options.
    """
    named: dict[Role, str] = {"model": config.backend}
    if config.rival is not None:
        named["baseline"] = config.baseline_backend or config.backend
    for name in config.backend_options:
        if name not in named.values():
            raise BadInputError(
                f"backend_options: {name} is not what reads: {', '.join(dict.fromkeys(named.values()))}"
            )
    return {role: _choose(name, config) for role, name in named.items()}


def _choose(name: str, config: EvalConfig) -> ChosenBackend:
    given = config.backend_options.get(name, {})
    if name == AUTO:
        return ChosenBackend("dequant", "backend auto", Dequant, BackendConfig())
    if "://" in name:
        selector, given = "hyocr-core:endpoint", {"url": _checked_urls(name), **given}
    else:
        selector = name
        known = [entry.name for entry in installed_backends()]
        if name.rpartition(":")[2] not in known:
            names = ", ".join(dict.fromkeys([AUTO, *known]))
            raise BackendError(f"unknown backend {name!r}; give {names}, or the URL of an OpenAI-compatible endpoint")
    loaded = load_backend(selector)
    if not issubclass(loaded.cls, Backend | InProcess):
        raise BackendError(f"{loaded.entry}: {loaded.entry.value} is no class that derives from hyocr_core.Backend")
    keys = loaded.cls.config_class.model_fields
    shared = {key: value for key in SHARED if key in keys and (value := getattr(config, key)) is not None}
    return ChosenBackend(loaded.entry.name, str(loaded.entry), loaded.cls, loaded.config(shared | given))


def _checked_urls(given: str) -> str:
    """The URLs of one or more endpoints, joined by commas. Raises BadInputError."""
    urls = [checked_url(url.strip()) for url in given.split(",")]
    twice = next((url for url in urls if urls.count(url) > 1), None)
    if twice is not None:
        raise BadInputError(f"backend {twice}: stands there twice; give each server once")
    return ",".join(urls)


def checked_url(url: str) -> str:
    """The URL of an endpoint, up to and including its `/v1`, without a slash at the end. Raises BadInputError."""
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise BadInputError(f"backend {_without_user(url)}: is no URL such as http://127.0.0.1:8000/v1")
    if parts.username is not None or parts.query or parts.fragment:
        raise BadInputError(
            f"backend {_without_user(url)}: a URL without user, query and fragment, please; the key of an endpoint "
            "goes into the environment variable HYOCR_API_KEY"
        )
    return url.rstrip("/")


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
