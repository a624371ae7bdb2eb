"""Find, import and validate quantization methods: entry points of the group `hyocr.methods`."""

from __future__ import annotations

import inspect
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from dataclasses import replace
from difflib import get_close_matches
from email.message import Message
from importlib.metadata import Distribution, EntryPoint, distributions
from typing import Any, cast

import pluggy

from hyocr_core import hookspecs
from hyocr_core.config import MethodConfig
from hyocr_core.errors import MethodError
from hyocr_core.method import Method, MethodEntry, brief
from hyocr_core.types import API_VERSION, MethodSpec

__all__ = ["Method", "MethodEntry", "installed_methods", "load_method"]

REQUIRED_HOOKS = ("method_spec", "quantize_layer", "pack", "unpack", "checkpoint_config")

Impls = dict[str, Callable[..., Any]]


def installed_methods() -> list[MethodEntry]:
    """List the methods of all installed distributions, by name; reads metadata only and imports no plugin."""
    entries = sorted(_entries(), key=lambda entry: (entry.name, entry.distribution))
    offers = Counter(entry.name for entry in entries)
    return [replace(entry, conflict=offers[entry.name] > 1) for entry in entries]


def load_method(selector: str) -> Method:
    """Import the one plugin that offers `selector` (`gptq` or `hyocr-plugin-gptq:gptq`) and validate it.

    Raises MethodError: unknown, offered twice, fails to import, other API version, or the contract is not kept.
    """
    entry = _choose(selector)
    plugin = _import(entry)
    manager = pluggy.PluginManager("hyocr")
    manager.add_hookspecs(hookspecs)
    try:
        impls = _collect_impls(manager, plugin)
        spec = _checked_spec(entry, impls)
        _check_hooks(impls, spec)
    except MethodError as error:
        raise MethodError(f"{entry}: {error}") from error.__cause__
    # Nothing is left that pluggy would refuse, half register or silently skip, so `check_pending` has no work.
    manager.register(plugin, entry.selector)
    return Method(spec, entry, manager.hook)


def _canonical(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _entries() -> Iterator[MethodEntry]:
    """Read the entry points of each distribution once: of an editable install and a stale copy the first wins."""
    seen: set[str] = set()
    for distribution in distributions():
        try:
            found = list(_entries_of(distribution))
        except Exception:  # noqa: S112
            # Metadata that cannot be read, perhaps of a package that has nothing to do with hyocr: no run may fail
            # for it, and importlib gives it no name that could be shown.
            continue
        fresh = [entry for entry in found if _canonical(entry.distribution) not in seen]
        seen.update(_canonical(entry.distribution) for entry in fresh)
        yield from fresh


def _entries_of(distribution: Distribution) -> Iterator[MethodEntry]:
    for point in distribution.entry_points.select(group=hookspecs.ENTRY_POINT_GROUP):
        # A message, so that a missing field is None and not an exception.
        metadata = cast(Message, distribution.metadata)
        yield MethodEntry(
            name=point.name,
            distribution=metadata.get("Name") or "unnamed-distribution",
            version=metadata.get("Version") or "without version",
            summary=metadata.get("Summary") or "",
            value=point.value,
        )


def _choose(selector: str) -> MethodEntry:
    distribution, _, name = selector.rpartition(":")
    entries = installed_methods()
    offers = [entry for entry in entries if entry.name == name]
    if not offers:
        raise MethodError(_unknown(name, entries))
    if distribution:
        chosen = [entry for entry in offers if _canonical(entry.distribution) == _canonical(distribution)]
        if not chosen:
            sources = " and ".join(entry.source for entry in offers)
            raise MethodError(f"no distribution {distribution!r} offers the method {name}; {sources} does")
        return chosen[0]
    if len(offers) > 1:
        sources = " and ".join(entry.source for entry in offers)
        choices = " or ".join(f"--method {entry.selector}" for entry in offers)
        raise MethodError(f"the method {name} is offered by {sources}; say {choices}")
    return offers[0]


def _unknown(name: str, entries: list[MethodEntry]) -> str:
    names = sorted({entry.name for entry in entries})
    installed = f"installed: {', '.join(names)}" if names else "none is installed"
    near = get_close_matches(name, names, n=1)
    if near:
        return f"no method {name!r} ({installed}); did you mean {near[0]}?"
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        return f"no method {name!r} ({installed}); try: pip install hyocr-plugin-{_canonical(name)}"
    return f"no method {name!r} ({installed})"


def _import(entry: MethodEntry) -> object:
    try:
        with redirect_stdout(sys.stderr):
            plugin = EntryPoint(entry.name, entry.value, hookspecs.ENTRY_POINT_GROUP).load()
    except (Exception, SystemExit) as error:
        raise MethodError(f"{entry}: importing {entry.value!r} failed: {brief(error)}") from error
    if inspect.isclass(plugin):
        module, _, name = entry.value.partition(":")
        raise MethodError(
            f"{entry}: its entry point names the class {name}; make an instance in {module},"
            f" such as `plugin = {name}()`, and name {module}:plugin"
        )
    return plugin


def _collect_impls(manager: pluggy.PluginManager, plugin: object) -> Impls:
    """Find the plugin's hook functions by hook name, before anything is registered."""
    impls: Impls = {}
    for attribute in dir(plugin):
        options = manager.parse_hookimpl_opts(plugin, attribute)
        if not options:
            continue
        hook = options.get("specname") or attribute
        if options["hookwrapper"] or options["wrapper"]:
            raise MethodError(f"hook {hook} is a wrapper; a method has nothing to wrap, write a plain @hookimpl")
        if hook in impls:
            raise MethodError(f"two functions implement the hook {hook}")
        if hook in HOOKS or not options["optionalhook"]:
            impls[hook] = getattr(plugin, attribute)
    return impls


def _checked_spec(entry: MethodEntry, impls: Impls) -> MethodSpec:
    """Call the plugin's method_spec; the API version first, because nothing else can be judged without it."""
    if "method_spec" not in impls:
        raise MethodError(_missing("method_spec", impls))
    _check_signature("method_spec", impls["method_spec"])
    try:
        with redirect_stdout(sys.stderr):
            spec = impls["method_spec"]()
    except (Exception, SystemExit) as error:
        raise MethodError(f"hook method_spec: {brief(error)}") from error
    if not isinstance(spec, MethodSpec):
        raise MethodError(f"hook method_spec must return a MethodSpec, not {type(spec).__name__}")
    if spec.api_version != API_VERSION:
        newer = isinstance(spec.api_version, int) and spec.api_version > API_VERSION
        upgrade = "hyocr-core" if newer else entry.distribution
        raise MethodError(
            f"it speaks plugin API {spec.api_version}, this hyocr-core speaks {API_VERSION};"
            f" try: pip install --upgrade {upgrade}"
        )
    if spec.name != entry.name:
        raise MethodError(f"its method_spec says the name {spec.name!r}, its entry point {entry.name!r}")
    _check_config_class(spec.config_class)
    return spec


def _check_config_class(config_class: object) -> None:
    if not (inspect.isclass(config_class) and issubclass(config_class, MethodConfig)):
        raise MethodError(f"its config class {config_class!r} does not derive from hyocr_core.MethodConfig")
    name = config_class.__name__
    if not config_class.model_config.get("frozen") or config_class.model_config.get("extra") != "forbid":
        raise MethodError(f'its config class {name} must keep frozen=True and extra="forbid"')
    try:
        schema = config_class.model_json_schema()
    except Exception as error:
        raise MethodError(f"its config class {name} has no JSON Schema: {brief(error)}") from error
    for model in (schema, *schema.get("$defs", {}).values()):
        if "properties" in model and model.get("additionalProperties") is not False:
            raise MethodError(f'the model {model["title"]} in its config class {name} must have extra="forbid"')
        bare = [key for key, field in model.get("properties", {}).items() if not field.get("description")]
        if bare:
            raise MethodError(f"the key {bare[0]} of its config class {model['title']} has no description")


def _check_hooks(impls: Impls, spec: MethodSpec) -> None:
    for hook, function in impls.items():
        if hook not in HOOKS:
            raise MethodError(f"there is no hook {hook}{_did_you_mean(hook, list(HOOKS))}")
        _check_signature(hook, function)
    required = (*REQUIRED_HOOKS, "calibrate") if spec.needs_calibration else REQUIRED_HOOKS
    for hook in required:
        if hook not in impls:
            raise MethodError(_missing(hook, impls))


def _missing(hook: str, impls: Impls) -> str:
    strangers = [name for name in impls if name not in HOOKS]
    near = get_close_matches(hook, strangers, n=1)
    return f"it has no hook {hook}" + (f"; {near[0]} is no hook, rename it to {hook}" if near else "")


def _did_you_mean(name: str, choices: list[str]) -> str:
    near = get_close_matches(name, choices, n=1)
    return f"; did you mean {near[0]}?" if near else f"; the hooks are {', '.join(choices)}"


def _check_signature(hook: str, function: Callable[..., Any]) -> None:
    """Refuse arguments that pluggy would reject, or silently never pass."""
    allowed = HOOKS[hook]
    offer = f"it may take: {', '.join(allowed)}" if allowed else "it takes none"
    for argument in inspect.signature(function).parameters.values():
        if argument.name not in allowed:
            raise MethodError(f"hook {hook} has the unknown argument {argument}; {offer}")
        if argument.kind is not argument.POSITIONAL_OR_KEYWORD:
            raise MethodError(f"hook {hook}: the argument {argument} must be a plain one, or it is never passed")
        if argument.default is not argument.empty:
            raise MethodError(f"hook {hook}: the argument {argument.name} has a default, so it is never passed")


def _hook_arguments() -> dict[str, list[str]]:
    functions = inspect.getmembers(hookspecs, lambda member: hasattr(member, "hyocr_spec"))
    return {name: list(inspect.signature(function).parameters) for name, function in functions}


HOOKS = _hook_arguments()
